//! Numbers for people: four significant places at most, the unit beside them.

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Nanos,
    /// Something a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// A quotient.
    Ratio,
    /// A plain number.
    Count,
}

impl Unit {
    /// Its name in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::PerSecond => "per_second",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes_per_second",
            Self::Ratio => "ratio",
            Self::Count => "count",
        }
    }
}

impl Unit {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Nanos,
            Self::PerSecond,
            Self::Bytes,
            Self::BytesPerSecond,
            Self::Ratio,
            Self::Count,
        ];
        all.into_iter().find(|unit| unit.name() == name)
    }
}

fn scaled(value: f64, base: f64, names: &[&str]) -> String {
    let mut value = value;
    let mut name = 0;
    while value.abs() >= base * 0.9995 && name + 1 < names.len() {
        value /= base;
        name += 1;
    }
    let places = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let suffix = names.get(name).copied().unwrap_or_default();
    format!("{value:.places$}{suffix}")
}

/// `value` in its unit.
pub(crate) fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanos => scaled(value, 1000.0, &[" ns", " µs", " ms", " s"]),
        Unit::PerSecond => scaled(value, 1000.0, &["/s", " K/s", " M/s", " G/s"]),
        Unit::Bytes => scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB"]),
        Unit::BytesPerSecond => scaled(value, 1024.0, &[" B/s", " KiB/s", " MiB/s", " GiB/s"]),
        Unit::Ratio => format!("{value:.2}"),
        Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Count => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_their_unit() {
        assert_eq!(show(95_310.0, Unit::Nanos), "95.3 µs");
        assert_eq!(show(0.4, Unit::Nanos), "0.40 ns");
        assert_eq!(show(999.9, Unit::Nanos), "1.00 µs");
        assert_eq!(show(43_500_000.0, Unit::PerSecond), "43.5 M/s");
        assert_eq!(show(130.0 * 1024.0 * 1024.0, Unit::Bytes), "130 MiB");
        assert_eq!(show(1.0, Unit::Ratio), "1.00");
        assert_eq!(show(0.0, Unit::Count), "0");
    }
}
