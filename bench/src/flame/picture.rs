//! A flame graph: each function a box as wide as the samples in which it was met, above the one that called it.

use std::fmt::Write as _;

use super::stacks::Stacks;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 17.0;
const TOP: f64 = 34.0;
/// Narrower boxes are left out.
const WIDE_ENOUGH: f64 = 0.4;
/// Width of a letter.
const LETTER: f64 = 6.6;

/// A function where it was called from: samples and what it called.
#[derive(Debug, Default)]
struct Node {
    name: String,
    samples: u64,
    children: Vec<Node>,
}

impl Node {
    /// Stacks come in order, so a function's calls from one place stand together.
    fn add(&mut self, stack: &[String], samples: u64) {
        self.samples += samples;
        let Some((first, rest)) = stack.split_first() else {
            return;
        };
        if self.children.last().is_none_or(|last| last.name != *first) {
            self.children.push(Self {
                name: first.clone(),
                ..Self::default()
            });
        }
        if let Some(last) = self.children.last_mut() {
            last.add(rest, samples);
        }
    }

    fn depth(&self) -> usize {
        1 + self.children.iter().map(Self::depth).max().unwrap_or(0)
    }
}

/// Whose code it is, by the beginning of its path.
fn owner(name: &str) -> &'static str {
    if name.starts_with("northstar-") {
        // A thread.
        return "engine";
    }
    let path = name.trim_start_matches(['<', '&', '(']);
    let begins = |words: &[&str]| words.iter().any(|word| path.starts_with(word));
    if begins(&["northstardb"]) {
        "engine"
    } else if begins(&["northstar_io", "io_uring"]) {
        "io"
    } else if begins(&["nsbench", "nshard"]) {
        "bench"
    } else if begins(&["std::", "core::", "alloc::", "hashbrown"]) {
        "std"
    } else if path.contains("::") {
        "crate"
    } else {
        "system"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "\
svg{background:#fbfbfa}text{font:11px ui-monospace,monospace;fill:#1d2127}.title{font:14px system-ui,sans-serif}\
rect{stroke:#fbfbfa;stroke-width:.6}.engine{fill:#f0a35e}.io{fill:#7fc4bd}.bench{fill:#c9ccd2}.std{fill:#a9c7ea}\
.crate{fill:#c8b6e2}.system{fill:#e3a1a1}\
@media(prefers-color-scheme:dark){svg{background:#14171b}text{fill:#14171b}.title,.legend{fill:#e4e7eb}rect{stroke:#14171b}}";

/// The picture.
pub(super) fn draw(stacks: &Stacks, title: &str) -> String {
    let mut root = Node {
        name: "all".to_owned(),
        ..Node::default()
    };
    for (stack, samples) in stacks.iter() {
        root.add(stack, samples);
    }
    let height = TOP + root.depth() as f64 * HEIGHT + 30.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\
         <style>{STYLE}</style><text class=\"title\" x=\"10\" y=\"20\">{}</text>\n",
        escape(title)
    );
    let bottom = height - 30.0 - HEIGHT;
    let total = root.samples.max(1);
    boxes(&mut text, &root, (0.0, bottom), total);
    let mut x = 10.0;
    for (class, words) in [
        ("engine", "engine"),
        ("io", "its I/O"),
        ("bench", "bench"),
        ("std", "standard library"),
        ("crate", "other crates"),
        ("system", "kernel and C"),
    ] {
        let drawn = write!(
            text,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{:.0}\" width=\"12\" height=\"12\"/><text class=\"legend\" x=\"{:.0}\" y=\"{:.0}\">{words}</text>",
            height - 20.0,
            x + 17.0,
            height - 10.0
        );
        debug_assert!(drawn.is_ok(), "a string takes what is written");
        x += 34.0 + words.len() as f64 * LETTER;
    }
    text + "</svg>\n"
}

fn boxes(text: &mut String, node: &Node, (x, y): (f64, f64), total: u64) {
    let wide = |samples: u64| samples as f64 / total as f64 * WIDTH;
    let width = wide(node.samples);
    if width < WIDE_ENOUGH {
        return;
    }
    let share = 100.0 * node.samples as f64 / total as f64;
    let name = escape(&node.name);
    let letters = (width / LETTER) as usize;
    let label = match node.name.chars().count() {
        _ if letters < 4 => String::new(),
        count if count <= letters => name.clone(),
        // The end of a path tells more than its beginning.
        count => escape(
            &node
                .name
                .chars()
                .skip(count + 2 - letters)
                .collect::<String>(),
        )
        .replacen("", "‥", 1),
    };
    let drawn = write!(
        text,
        "<g><title>{name}: {} samples, {share:.1} %</title><rect class=\"{}\" x=\"{x:.2}\" y=\"{y:.0}\" width=\"{width:.2}\" height=\"{HEIGHT}\" rx=\"1.5\"/>",
        node.samples,
        owner(&node.name)
    );
    debug_assert!(drawn.is_ok(), "a string takes what is written");
    if !label.is_empty() {
        let drawn = write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            x + 3.0,
            y + HEIGHT - 5.0
        );
        debug_assert!(drawn.is_ok(), "a string takes what is written");
    }
    text.push_str("</g>\n");
    let mut left = x;
    for child in &node.children {
        boxes(text, child, (left, y - HEIGHT), total);
        left += wide(child.samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_as_wide_as_their_samples_and_names_are_text() {
        let mut all = Stacks::default();
        let stack = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
                .into_iter()
        };
        all.add("nsbench", stack(&["main", "northstardb::get<u8>"]), 3);
        all.add("nsbench", stack(&["main", "std::read"]), 1);
        let svg = draw(&all, "a & b");
        assert!(
            svg.contains("northstardb::get&lt;u8&gt;: 3 samples, 75.0 %"),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"engine\" x=\"0.00\"") && svg.contains("width=\"900.00\""),
            "{svg}"
        );
        assert!(svg.contains("std::read: 1 samples, 25.0 %") && svg.contains("a &amp; b"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }
}
