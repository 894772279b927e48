//! Shares and middles of errors.

/// The share of `errors` below `threshold`; nothing of nothing.
pub fn share_below(errors: &[f64], threshold: f64) -> Option<f64> {
    let below = errors.iter().filter(|&&error| error < threshold).count();
    (!errors.is_empty()).then(|| below as f64 / errors.len() as f64)
}

/// The arithmetic mean; nothing of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle value, or the mean of the two in the middle; nothing of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    // Equal first: the middle of two infinities is one.
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
    fn middles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(median(&[]), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
    }
}
