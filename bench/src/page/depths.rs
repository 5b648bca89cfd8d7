//! Queue-depth curves: what a device does at once, and what an operation then waits.

use std::collections::BTreeMap;

use super::plots::{Rows, of};
use super::svg::{Anchor, Axis, Svg, escape, tick};
use crate::units::{Unit, show};

/// Width and height of one curve, and where its axes are.
const WIDTH: f64 = 490.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 474.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 176.0;

/// What a row's name says: the curve and its depth.
fn curve_of(short: &str) -> Option<(&str, u32)> {
    if short == "io/queue_read_16k" {
        return Some(("io/read_16k", 1));
    }
    let (curve, depth) = short.rsplit_once("_depth_")?;
    Some((curve, depth.parse().ok()?))
}

/// Curves of at least two depths, by name: operations a second by depth.
fn curves<'r>(rows: &Rows<'r>) -> BTreeMap<&'r str, BTreeMap<u32, f64>> {
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (short, records) in rows {
        if let Some((curve, depth)) = curve_of(short) {
            let rate = of(records, |record| record.results.ops_per_sec);
            all.entry(curve).or_default().insert(depth, rate);
        }
    }
    all.retain(|_, points| points.len() > 1);
    all
}

/// A card for each curve: operations a second on the left axis, what one waits below each depth.
pub(super) fn section(rows: &Rows<'_>) -> Option<String> {
    let cards: String = curves(rows)
        .iter()
        .map(|(name, points)| card(name, points))
        .collect();
    (!cards.is_empty()).then(|| {
        format!(
            "<p>Operations a second by how many are in flight; the dashed line is what one at a time would give times the \
             depth. Where the curve leaves it the device is as busy as it gets, and more in flight only wait longer: \
             below each depth stands what one waits on average, the depth divided by the rate (Little's law).</p><div class=\"grid wide\">{cards}</div>"
        )
    })
}

fn card(name: &str, points: &BTreeMap<u32, f64>) -> String {
    let rates = points.values().copied();
    let highest = rates.clone().fold(0.0, f64::max);
    let axis = Axis::log(rates, BOTTOM, TOP);
    let mut svg = Svg::new(WIDTH, HEIGHT);
    for at in axis.ticks(4) {
        let y = axis.at(at);
        svg.line((LEFT, y), (RIGHT, y), "gridline");
        let label = tick(at, Unit::PerSecond);
        svg.text((LEFT - 6.0, y + 4.0), Anchor::End, "tick", &label);
    }
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis");
    // Depths by their logarithm, so that a curve that follows the depth is a straight line.
    let log = |depth: u32| f64::from(depth.max(1)).log2();
    let last = points.keys().last().map_or(1.0, |last| log(*last));
    let x = |depth: u32| LEFT + 18.0 + log(depth) / last.max(1.0) * (RIGHT - LEFT - 36.0);
    let line: Vec<(f64, f64)> = points
        .iter()
        .map(|(depth, rate)| (x(*depth), axis.at(*rate)))
        .collect();
    if let Some((first, one)) = points.first_key_value() {
        let ideal: Vec<(f64, f64)> = points
            .keys()
            .map(|depth| (*depth, one * f64::from(*depth) / f64::from((*first).max(1))))
            // Beyond the plot it would lie along its edge.
            .take_while(|(_, rate)| *rate <= highest)
            .map(|(depth, rate)| (x(depth), axis.at(rate)))
            .collect();
        svg.polyline(&ideal, "ideal");
    }
    svg.polyline(&line, "trend");
    for ((depth, rate), at) in points.iter().zip(&line) {
        // Little's law.
        let wait = show(f64::from(*depth) * 1e9 / rate, Unit::Nanos);
        let rate = show(*rate, Unit::PerSecond);
        let title = format!("{name}, {depth} in flight: {rate}, each waits {wait}");
        svg.dot(*at, 4.0, "p50", &title);
        svg.text(
            (at.0, BOTTOM + 16.0),
            Anchor::Middle,
            "tick",
            &depth.to_string(),
        );
        svg.text((at.0, BOTTOM + 34.0), Anchor::Middle, "tick", &wait);
    }
    format!(
        "<div class=\"card\"><code>{}</code><div class=\"unit\">rate and wait by depth</div>{}</div>\n",
        escape(name),
        svg.finish(&format!("{name}: operations a second by queue depth"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::record;

    #[test]
    fn rows_of_one_kind_are_a_curve_by_depth() {
        let of = |rate: f64| {
            let mut one = record();
            one.results.ops_per_sec = rate;
            vec![one]
        };
        let (one, eight, alone, other) = (of(10_000.0), of(60_000.0), of(5000.0), of(1.0));
        let rows: Rows<'_> = vec![
            ("io/read_16k_depth_8", &eight),
            ("io/queue_read_16k", &one),
            ("io/write_16k_depth_1", &alone),
            ("log/commit_solo_durable", &other),
        ];
        let found = curves(&rows);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["io/read_16k"]);
        let expected = BTreeMap::from([(1, 10_000.0), (8, 60_000.0)]);
        assert_eq!(found["io/read_16k"], expected);
        let text = section(&rows).unwrap();
        assert!(
            text.contains("io/read_16k, 8 in flight: 60.0 K/s, each waits 133 µs"),
            "{text}"
        );
        assert_eq!(section(&rows[2..].to_vec()), None, "a point is no curve");
    }
}
