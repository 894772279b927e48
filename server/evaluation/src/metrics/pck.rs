//! Shares, means and medians of errors.

/// The share of `errors` below `threshold`, the percentage of correct keypoints (PCK) for errors of keypoints; `None` if
/// there are none.
pub fn share_below(errors: &[f64], threshold: f64) -> Option<f64> {
    let below = errors.iter().filter(|&&error| error < threshold).count();
    (!errors.is_empty()).then(|| below as f64 / errors.len() as f64)
}

/// The arithmetic mean; `None` if there are no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The median; `None` if there are no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    // Equal values are not averaged, because the midpoint of two infinities is NaN.
    Some(if lower.total_cmp(&upper).is_eq() { upper } else { f64::midpoint(lower, upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_what_is_strictly_below() {
        assert_eq!(share_below(&[0.0, 0.5, 1.0, f64::INFINITY], 1.0), Some(0.5));
        assert_eq!(share_below(&[], 1.0), None);
    }

    #[test]
    fn means_and_medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(median(&[]), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
    }
}
