//! Reading the stream: large sequential reads, one chunk ahead.
//!
//! - Cost: bytes are copied only when what is asked for crosses chunks.
//! - Failure: a missing or short segment reads as absent; an error of the device is an error, never an end.

use std::sync::Arc;

use northstar_io::{Buf, Completion, File, IoError, Op, OpenMode, Queue};

use super::segment::Segments;
use crate::ids::Lsn;
use crate::limits::LOG_BLOCK_BYTES;

/// Above this the memory of an assembled range is given back before the next.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A walk over the bytes of the log. Writes nothing.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    chunks: Chunks<'s>,
    assembled: Vec<u8>,
}

impl<'s> Reader<'s> {
    /// A walk over what `segments` hold.
    pub(super) fn new(segments: &'s Segments) -> Result<Self, IoError> {
        let chunks = Chunks {
            segments,
            chunk_bytes: segments.chunk_bytes(),
            queue: segments.disk().queue(2)?,
            file: None,
            current: None,
            ahead: None,
            spare: Vec::new(),
            ended: Vec::new(),
        };
        Ok(Self {
            chunks,
            assembled: Vec::new(),
        })
    }

    /// The `len` bytes from `at` on, if all of them exist.
    pub(super) fn bytes(&mut self, at: Lsn, len: u64) -> Result<Option<&[u8]>, IoError> {
        let (chunk_bytes, at) = (self.chunks.chunk_bytes, at.get());
        let end = at.saturating_add(len);
        let base = at - at % chunk_bytes;
        if end - base <= chunk_bytes {
            return self.chunks.part(at, end);
        }
        self.assembled.clear();
        self.assembled.shrink_to(KEPT_BYTES_MAX);
        let mut from = at;
        while from < end {
            let to = end.min((from - from % chunk_bytes).saturating_add(chunk_bytes));
            // The memory grows with what was really read: the length asked for sizes nothing.
            match self.chunks.part(from, to)? {
                Some(part) => self.assembled.extend_from_slice(part),
                None => return Ok(None),
            }
            from = to;
        }
        Ok(Some(&self.assembled))
    }

    /// Forgets what was read: it is read anew.
    pub(super) fn again(&mut self) -> Result<(), IoError> {
        self.chunks.forget()
    }

    /// What exists of the chunk that begins at `base`.
    pub(super) fn chunk(&mut self, base: Lsn) -> Result<&[u8], IoError> {
        Ok(self.chunks.chunk(base.get())?.unwrap_or_default())
    }
}

#[derive(Debug)]
struct Chunks<'s> {
    segments: &'s Segments,
    chunk_bytes: u64,
    queue: Box<dyn Queue>,
    /// The segment looked at last.
    file: Option<Looked>,
    /// The chunk at hand and its position.
    current: Option<(u64, Buf)>,
    /// The position of the chunk in flight.
    ahead: Option<u64>,
    spare: Vec<Buf>,
    ended: Vec<Completion>,
}

/// A segment's number, and if it exists its file and length.
#[derive(Debug)]
struct Looked {
    number: u64,
    found: Option<(Arc<dyn File>, u64)>,
}

/// Where a chunk lies, and how many of its bytes, in whole blocks, exist.
struct Place {
    file: Arc<dyn File>,
    offset: u64,
    len: usize,
}

impl Chunks<'_> {
    /// Bytes `from..to` of the stream, which lie in one chunk, if they exist.
    fn part(&mut self, from: u64, to: u64) -> Result<Option<&[u8]>, IoError> {
        let base = from - from % self.chunk_bytes;
        let index = |at: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
        Ok(self
            .chunk(base)?
            .and_then(|chunk| chunk.get(index(from)..index(to))))
    }

    fn chunk(&mut self, base: u64) -> Result<Option<&[u8]>, IoError> {
        if self.current.as_ref().is_none_or(|(at, _)| *at != base) {
            self.load(base)?;
        }
        Ok(self.current.as_ref().map(|(_, buf)| &**buf))
    }

    fn forget(&mut self) -> Result<(), IoError> {
        self.spare.extend(self.current.take().map(|(_, buf)| buf));
        if self.end_ahead()?.is_some() {
            let ended = self.ended.pop();
            self.spare
                .extend(ended.and_then(|completion| completion.buf));
        }
        self.file = None;
        Ok(())
    }

    /// Waits for the chunk in flight, and gives its position.
    fn end_ahead(&mut self) -> Result<Option<u64>, IoError> {
        let ahead = self.ahead.take();
        if ahead.is_some() && self.ended.is_empty() {
            self.queue.poll(1, &mut self.ended)?;
        }
        Ok(ahead)
    }

    fn load(&mut self, base: u64) -> Result<(), IoError> {
        if let Some((_, buf)) = self.current.take() {
            self.spare.push(buf);
        }
        let ahead = self.end_ahead()?;
        if let Some(Completion {
            buf: Some(buf),
            result,
            ..
        }) = self.ended.pop()
        {
            if ahead == Some(base) {
                result?;
                self.current = Some((base, buf));
            } else {
                self.spare.push(buf);
            }
        }
        if self.current.is_none() {
            let Some(place) = self.locate(base)? else {
                return Ok(());
            };
            let mut buf = self.buf(place.len);
            place.file.read_at(place.offset, &mut buf)?;
            self.current = Some((base, buf));
        }
        let next = base.saturating_add(self.chunk_bytes);
        if let Some(Place { file, offset, len }) = self.locate(next)? {
            let buf = self.buf(len);
            self.queue.submit(next, Op::Read { file, offset, buf })?;
            // A queue may wait for company: this starts the read.
            self.queue.poll(0, &mut self.ended)?;
            self.ahead = Some(next);
        }
        Ok(())
    }

    fn locate(&mut self, base: u64) -> Result<Option<Place>, IoError> {
        let (number, offset) = self.segments.locate(Lsn::new(base));
        if self
            .file
            .as_ref()
            .is_none_or(|looked| looked.number != number)
        {
            let file = self.segments.open_file(number, OpenMode::Read)?;
            let found = file
                .map(|file| file.len().map(|len| (file, len)))
                .transpose()?;
            self.file = Some(Looked { number, found });
        }
        let Some(Looked {
            found: Some((file, len)),
            ..
        }) = &self.file
        else {
            return Ok(None);
        };
        let exist = len.saturating_sub(offset).min(self.chunk_bytes);
        let len = usize::try_from(exist).unwrap_or(0) / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
        Ok((len > 0).then(|| Place {
            file: Arc::clone(file),
            offset,
            len,
        }))
    }

    fn buf(&mut self, len: usize) -> Buf {
        match self.spare.pop() {
            Some(buf) if buf.len() == len => buf,
            _ => Buf::zeroed(len),
        }
    }
}
