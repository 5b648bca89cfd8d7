//! A few numbers about a few numbers: the middle, the spread, the coefficient of variation.

/// The middle value; of an even number of them the mean of two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 0) => f64::midpoint(sorted.get(half - 1).copied().unwrap_or(*upper), *upper),
        (Some(middle), _) => *middle,
    }
}

/// The median distance from the median.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let middle = median(values);
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&distances)
}

/// The largest less the smallest; 0 of none.
pub(crate) fn range(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (most - least).max(0.0)
}

/// The sum divided by how many there are.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Standard deviation of the sample divided by its mean; `None` of fewer than two values, or around 0.
pub(crate) fn variation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    if values.len() < 2 || mean == 0.0 {
        return None;
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt() / mean.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!((spread(&[1.0, 2.0, 9.0]) - 1.0).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }

    #[test]
    fn the_coefficient_of_variation_needs_two_values_and_a_mean() {
        let found = variation(&[9.0, 10.0, 11.0]);
        assert!(
            found.is_some_and(|found| (found - 0.1).abs() < 1e-9),
            "{found:?}"
        );
        assert_eq!(variation(&[1.0]), None);
        assert_eq!(variation(&[0.0, 0.0]), None);
    }
}
