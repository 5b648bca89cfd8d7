//! What a run does, as a seed says it, or as less than that: a failure is made small by leaving steps out.

use std::fmt::Write;

use clap::Parser;

use super::setup::SimSetup;
use crate::Failure;
use crate::ops::{Step, Stream};
use crate::rng::Rng;

/// What a run is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Steps of work in each life.
    pub steps: usize,
    /// Lives: each begins with what the end of the one before left.
    pub lives: usize,
    /// Power cuts in each life.
    pub cuts: u64,
    /// One cut of so many is followed by cuts during the recovery from it; 0 for none.
    pub deeper: u64,
    /// The disk has faults.
    pub faults: bool,
    /// Only these steps: life and place in it, rising. All if absent.
    pub kept: Option<Vec<(usize, usize)>>,
}

impl Plan {
    /// What `seed` does by itself.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self {
            seed,
            // Long lives are those in which segments of the log are used again.
            steps: if seed % 8 == 5 { 120 } else { 24 },
            lives: 3,
            cuts: 150,
            deeper: 8,
            faults: false,
            kept: None,
        }
    }

    /// The steps of every life.
    #[must_use]
    pub fn work(&self, setup: &SimSetup) -> Vec<Vec<Step>> {
        let mut stream = Stream::new(self.seed, setup.shape);
        let kept = |life, at| {
            let listed = |kept: &Vec<_>| kept.binary_search(&(life, at)).is_ok();
            self.kept.as_ref().is_none_or(listed)
        };
        (0..self.lives)
            .map(|life| {
                let steps = (0..self.steps).map(|at| (at, stream.step()));
                let steps: Vec<_> = steps.collect();
                let steps = steps.into_iter().filter(|(at, _)| kept(life, *at));
                let followed = |at| setup.followed.then(|| self.follow(life, at)).flatten();
                let steps = steps.map(|(at, step)| [Some(step), followed(at)]);
                steps.flatten().flatten().collect()
            })
            .collect()
    }

    /// What a subscriber does behind the step at a place, if it does anything there.
    fn follow(&self, life: usize, at: usize) -> Option<Step> {
        let place = (life as u64) << 32 | at as u64;
        let mut rng = Rng::new(self.seed).fork(6).fork(1 + place);
        let pick = u32::try_from(rng.below(1 << 20)).unwrap_or(0);
        rng.chance(35).then_some(Step::Follow(pick))
    }

    /// Life and place of every step.
    pub(super) fn places(&self) -> Vec<(usize, usize)> {
        let all = || (0..self.lives).flat_map(|life| (0..self.steps).map(move |at| (life, at)));
        self.kept.clone().unwrap_or_else(|| all().collect())
    }

    /// The line that does it again.
    #[must_use]
    pub fn replay(&self) -> String {
        let Self {
            seed,
            steps,
            lives,
            cuts,
            deeper,
            faults,
            kept,
        } = self;
        let mut line = format!("nshard sim --seed {seed}");
        let usual = Self::of(*seed);
        let options = [
            ("steps", *steps as u64, usual.steps as u64),
            ("lives", *lives as u64, usual.lives as u64),
            ("cuts", *cuts, usual.cuts),
            ("deeper", *deeper, usual.deeper),
        ];
        for (name, value, usual) in options {
            if value != usual {
                write!(line, " --{name} {value}").ok();
            }
        }
        if *faults {
            line.push_str(" --faults");
        }
        if let Some(kept) = kept {
            let places = kept.iter().map(|(life, at)| format!("{life}.{at}"));
            write!(line, " --keep {}", places.collect::<Vec<_>>().join(",")).ok();
        }
        line
    }
}

/// A plan as a command line says it: what [`Plan::replay`] writes behind `sim`.
#[derive(Debug, Clone, clap::Args)]
pub struct Said {
    /// Decides everything
    #[arg(long)]
    seed: u64,
    /// Steps of work in each life
    #[arg(long)]
    steps: Option<usize>,
    /// Lives: each begins with what the end of the one before left
    #[arg(long)]
    lives: Option<usize>,
    /// Power cuts in each life
    #[arg(long)]
    cuts: Option<u64>,
    /// One cut of so many is followed by cuts during recovery; 0 for none
    #[arg(long)]
    deeper: Option<u64>,
    /// The disk has faults
    #[arg(long)]
    faults: bool,
    /// Only these steps: `life.step`, separated by commas
    #[arg(long, value_parser = parse_kept)]
    keep: Option<Kept>,
}

impl From<Said> for Plan {
    fn from(said: Said) -> Self {
        let usual = Self::of(said.seed);
        Self {
            seed: said.seed,
            steps: said.steps.unwrap_or(usual.steps),
            lives: said.lives.unwrap_or(usual.lives),
            cuts: said.cuts.unwrap_or(usual.cuts),
            deeper: said.deeper.unwrap_or(usual.deeper),
            faults: said.faults,
            kept: said.keep.map(|kept| kept.0),
        }
    }
}

/// A line of `seeds/regressions`, as if it were a command.
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: LineCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LineCommand {
    Sim(Said),
}

/// Seeds that once broke a promise.
///
/// # Errors
/// A line that says none.
pub fn regressions() -> Result<Vec<Plan>, Failure> {
    let lines = include_str!("../../seeds/regressions").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let plan = |line: &str| {
        let words = std::iter::once("nshard").chain(line.split_whitespace());
        let said = Line::try_parse_from(words).map_err(|error| Failure::Broken(error.to_string()));
        said.map(
            |Line {
                 command: LineCommand::Sim(said),
             }| said.into(),
        )
    };
    lines.map(plan).collect()
}

/// Steps named by `--keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept(Vec<(usize, usize)>);

/// Reads what [`Plan::replay`] writes behind `--keep`.
///
/// # Errors
/// The part that is no `life.step`.
fn parse_kept(text: &str) -> Result<Kept, String> {
    let place = |part: &str| {
        let (life, at) = part.split_once('.')?;
        Some((life.parse().ok()?, at.parse().ok()?))
    };
    let parts = text.split(',').filter(|part| !part.is_empty());
    let mut kept: Vec<_> = parts
        .map(|part| place(part).ok_or_else(|| part.to_owned()))
        .collect::<Result<_, _>>()?;
    kept.sort_unstable();
    Ok(Kept(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_line_says_which_steps_are_kept() {
        let mut plan = Plan::of(7);
        assert_eq!(plan.replay(), "nshard sim --seed 7");
        plan.kept = Some(vec![(0, 3), (2, 11)]);
        plan.cuts = 9;
        assert_eq!(
            plan.replay(),
            "nshard sim --seed 7 --cuts 9 --keep 0.3,2.11"
        );
        assert_eq!(parse_kept("2.11,0.3,"), Ok(Kept(vec![(0, 3), (2, 11)])));
        assert_eq!(parse_kept("2.11,x"), Err("x".to_owned()));
        let work = plan.work(&SimSetup::of(7));
        let all = Plan::of(7).work(&SimSetup::of(7));
        assert_eq!(work[0], vec![all[0][3].clone()]);
        assert!(work[1].is_empty());
        assert_eq!(work[2], vec![all[2][11].clone()]);
    }

    #[test]
    fn what_a_subscriber_does_goes_with_the_step_before_it() {
        let plan = Plan::of(7);
        let work = |plan: &Plan, followed| {
            let setup = SimSetup {
                followed,
                ..SimSetup::of(7)
            };
            plan.work(&setup)
        };
        let (alone, followed) = (work(&plan, false), work(&plan, true));
        assert!(followed[0].len() > alone[0].len() + 3);
        let others = followed[0].iter();
        let others = others.filter(|step| !matches!(step, Step::Follow(_)));
        assert!(others.eq(&alone[0]));
        let last = alone[0].len() - 1;
        let few = Plan {
            kept: (0..=last).step_by(2).map(|at| Some((0, at))).collect(),
            ..plan
        };
        let kept = &work(&few, true)[0];
        assert!(kept.iter().all(|step| followed[0].contains(step)));
    }
}
