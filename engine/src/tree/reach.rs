//! How many leaves a stretch of keys takes, as the branches above them say.
//!
//! - Cost: the branches above the leaves counted; no leaf is read.
//! - Failure: hostile pages give [`PageError`], or a wrong number; never more steps than leaves asked for.

use std::ops::ControlFlow;

use super::search::{check_level, child_index};
use crate::format::branch::Branch;
use crate::format::page::PageError;
use crate::ids::PageRef;
use crate::pages::{Class, PagePin, PageRead};

/// See [`reach`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The stretch ends within so many leaves.
    Within(usize),
    /// It goes on behind the last of them: the first key that the leaf after it may hold.
    Beyond(Vec<u8>),
}

/// Counts the leaves from the one of key `from` on that hold keys below `to`, `most` of them.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn reach<P: PageRead>(
    pages: &P,
    root: Option<PageRef>,
    (from, to): (&[u8], Option<&[u8]>),
    most: usize,
) -> Result<Reach, PageError> {
    let Some(root) = root else {
        return Ok(Reach::Within(0));
    };
    let mut count = Count {
        pages,
        to,
        most: most.max(1),
        leaves: 1,
        key: Vec::new(),
    };
    Ok(match count.below(root, None, from)? {
        ControlFlow::Break(Ended::AtMost) => Reach::Beyond(count.key),
        ControlFlow::Break(Ended::AtEnd) | ControlFlow::Continue(()) => Reach::Within(count.leaves),
    })
}

struct Count<'p, P> {
    pages: &'p P,
    to: Option<&'p [u8]>,
    most: usize,
    /// Leaves come to so far.
    leaves: usize,
    /// The key between the last of them and the next.
    key: Vec<u8>,
}

enum Ended {
    AtMost,
    AtEnd,
}

impl<P: PageRead> Count<'_, P> {
    fn below(
        &mut self,
        page: PageRef,
        level: Option<u8>,
        from: &[u8],
    ) -> Result<ControlFlow<Ended>, PageError> {
        let pin = self.pages.load(page, Class::Point)?;
        let level = check_level(pin.page(), level)?;
        if level == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let branch = Branch::view(pin.page())?;
        let first = child_index(&branch, from)?;
        for index in first..branch.count() {
            if index > first {
                branch.separator_into(index, &mut self.key)?;
                if self.to.is_some_and(|to| to <= &*self.key) {
                    return Ok(ControlFlow::Break(Ended::AtEnd));
                }
                if self.leaves == self.most {
                    return Ok(ControlFlow::Break(Ended::AtMost));
                }
                self.leaves += 1;
            }
            if level > 1 {
                let from = if index == first { from } else { &[] };
                let ended = self.below(branch.child(index)?, Some(level - 1), from)?;
                if ended.is_break() {
                    return Ok(ended);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
