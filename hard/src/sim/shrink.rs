//! Makes a failure small: fewer lives and fewer steps that still fail, however it is that they do.
//!
//! - Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002).

use super::script::Plan;

/// Tries that a failure is worth.
const TRIES_MAX: usize = 400;

/// The smallest plan found that `fails`, beginning with one that does.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut tries = 0;
    let mut attempt = |best: &mut Plan, other: Plan| {
        tries += 1;
        let smaller = tries <= TRIES_MAX && fails(&other);
        if smaller {
            *best = other;
        }
        smaller
    };
    while best.lives > 1 {
        let mut fewer = best.clone();
        fewer.lives -= 1;
        if !attempt(&mut best, fewer) {
            break;
        }
    }
    let mut places = best.places();
    let mut size = places.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut any = false;
        while at < places.len() {
            let mut fewer = places.clone();
            fewer.drain(at..(at + size).min(places.len()));
            let mut other = best.clone();
            other.kept = Some(fewer.clone());
            if attempt(&mut best, other) {
                places = fewer;
                any = true;
            } else {
                at += size;
            }
        }
        size = match (any, size) {
            (true, 1) => 1,
            _ => size / 2,
        };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let needed = [(0, 5), (1, 17), (1, 18)];
        let fails = |plan: &Plan| {
            let places = plan.places();
            plan.lives >= 2 && needed.iter().all(|place| places.contains(place))
        };
        let small = shrink(&Plan::of(1), fails);
        assert_eq!((small.lives, small.kept), (2, Some(needed.to_vec())));
    }
}
