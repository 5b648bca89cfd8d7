//! Drawing: a few shapes, axes with round ticks, escaped text. Colours are classes of the page's style sheet, so that a plot
//! follows the reader's light or dark mode; nothing needs a script.
//!
//! A plotting crate would save the axes and cost the rest: those at hand write fixed colours, and pixels for text.

use std::fmt::Write as _;

use crate::units::Unit;

/// Text that may stand in HTML, between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Where a text stands beside its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture under construction; units are those of its view box.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            body: String::new(),
        }
    }

    /// Adds markup; a string takes whatever is written to it.
    fn add(&mut self, markup: std::fmt::Arguments<'_>) {
        let written = self.body.write_fmt(markup);
        debug_assert!(written.is_ok(), "a string takes what is written");
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, class: &str, title: &str) {
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"><title>{}</title></circle>",
            escape(title)
        ));
    }

    /// A triangle with its tip up.
    pub(super) fn triangle(&mut self, (x, y): (f64, f64), size: f64, class: &str, title: &str) {
        self.add(format_args!(
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\" class=\"{class}\"><title>{}</title></path>",
            x,
            y - size,
            x + size,
            y + size * 0.8,
            x - size,
            y + size * 0.8,
            escape(title)
        ));
    }

    pub(super) fn rect(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        class: &str,
        title: &str,
    ) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" class=\"{class}\"><title>{}</title></rect>",
            width.max(0.0),
            escape(title)
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.add(format_args!(
            "<polyline points=\"{}\" class=\"{class}\"/>",
            points.join(" ")
        ));
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            escape(text)
        ));
    }

    /// The picture, described for those who do not see it.
    pub(super) fn finish(self, label: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\" style=\"max-width:{:.0}px\">{}</svg>\n",
            self.width,
            self.height,
            escape(label),
            self.width,
            self.body
        )
    }
}

/// Values along a stretch of the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Where in the picture it begins and ends.
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Axis {
    /// By powers of ten, from the one at or below the least value to the one at or above the largest.
    pub(super) fn log(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = bounds(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let low = 10_f64.powf(low.log10().floor());
        let high = 10_f64.powf(high.log10().ceil());
        Self {
            low,
            high: if high > low { high } else { low * 10.0 },
            log: true,
            from,
            to,
        }
    }

    /// By equal steps that are round, around all values and `within`.
    pub(super) fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
        let room = if high > low {
            (high - low) * 0.08
        } else {
            high.abs().max(1.0) * 0.05
        };
        // What cannot be negative does not get an axis that is.
        let bottom = if low >= 0.0 {
            (low - room).max(0.0)
        } else {
            low - room
        };
        Self {
            low: bottom,
            high: high + room,
            log: false,
            from,
            to,
        }
    }

    /// Where a value is.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = match self.log {
            true => {
                (value.max(self.low).log10() - self.low.log10())
                    / (self.high.log10() - self.low.log10())
            }
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values, about `wanted` of them.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.log {
            let (low, high) = (
                self.low.log10().round() as i32,
                self.high.log10().round() as i32,
            );
            let every = ((high - low) as usize / wanted.max(1) + 1) as i32;
            let powers = (low..=high).filter(|power| (power - low) % every == 0);
            return powers.map(|power| 10_f64.powi(power)).collect();
        }
        let rough = (self.high - self.low) / wanted.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0];
        let step = steps
            .iter()
            .map(|step| step * power)
            .find(|step| *step >= rough);
        let step = step.unwrap_or(power * 10.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .fold(None, |all, value| {
            let (low, high) = all.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        })
}

/// A tick's label: as few digits as a round value needs.
pub(super) fn tick(value: f64, unit: Unit) -> String {
    let (scale, names): (f64, &[&str]) = match unit {
        Unit::Nanos => (1000.0, &[" ns", " µs", " ms", " s"]),
        Unit::PerSecond => (1000.0, &["/s", " K/s", " M/s", " G/s"]),
        Unit::Bytes | Unit::BytesPerSecond | Unit::Ratio | Unit::Count => {
            return crate::units::show(value, unit);
        }
    };
    let (mut value, mut name) = (value, 0);
    while value.abs() >= scale && name + 1 < names.len() {
        value /= scale;
        name += 1;
    }
    let digits = (value * 1000.0).round() / 1000.0;
    format!("{digits}{}", names.get(name).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_results_cannot_become_markup() {
        assert_eq!(escape("<b a='x'>&\""), "&lt;b a=&#39;x&#39;&gt;&amp;&quot;");
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((1.0, 1.0), Anchor::Start, "label", "</text><script>");
        svg.dot((1.0, 1.0), 1.0, "dot", "\"><script>");
        let text = svg.finish("<x>");
        assert!(!text.contains("<script"), "{text}");
    }

    #[test]
    fn a_log_axis_covers_its_values_by_whole_powers_of_ten() {
        let axis = Axis::log([320.0, 7_000_000.0].into_iter(), 0.0, 500.0);
        let ticks = axis.ticks(10);
        assert_eq!(ticks.len(), 6, "{ticks:?}");
        assert!((axis.at(100.0)).abs() < 1e-9 && (axis.at(1e7) - 500.0).abs() < 1e-9);
        assert!((axis.at(1e4) - 200.0).abs() < 1e-9, "two of five decades");
        let labels: Vec<String> = ticks
            .iter()
            .map(|value| tick(*value, Unit::Nanos))
            .collect();
        assert_eq!(
            labels,
            ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms"]
        );
    }

    #[test]
    fn a_linear_axis_has_round_ticks_and_stays_above_zero() {
        let axis = Axis::linear([0.0, 97.0].into_iter(), 100.0, 0.0);
        assert_eq!(axis.ticks(5), [0.0, 50.0, 100.0]);
        assert!((axis.at(0.0) - 100.0).abs() < 1e-9, "upwards");
        let flat = Axis::linear([5.0].into_iter(), 0.0, 1.0);
        assert!(flat.at(5.0) > 0.2 && flat.at(5.0) < 0.8);
    }
}
