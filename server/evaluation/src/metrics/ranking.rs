//! Quality of a score as a binary classifier.

/// The area under the receiver operating characteristic: the probability that a positive has a higher score than a
/// negative, where ties count half. 0.5 is chance. `points` are `(score, is positive)`; `None` if all are of one class.
pub fn area_under_roc(points: &[(f64, bool)]) -> Option<f64> {
    let (mut won, mut negatives_below, mut positives) = (0.0, 0.0, 0.0);
    for (in_group, positive_group) in tied_groups(points, |a, b| a.total_cmp(&b)) {
        let negative_group = in_group - positive_group;
        won += positive_group * (negatives_below + negative_group / 2.0);
        negatives_below += negative_group;
        positives += positive_group;
    }
    let pairs = positives * negatives_below;
    (pairs > 0.0).then(|| won / pairs)
}

/// The average precision: the mean precision at the ranks of the positives, by falling score, where equal scores share a
/// rank. The share of positives is chance. `points` are `(score, is positive)`; `None` if all are of one class.
pub fn average_precision(points: &[(f64, bool)]) -> Option<f64> {
    let (mut seen, mut positives, mut sum) = (0.0, 0.0, 0.0);
    for (in_group, positive_group) in tied_groups(points, |a, b| b.total_cmp(&a)) {
        seen += in_group;
        positives += positive_group;
        sum += positive_group * positives / seen;
    }
    (positives > 0.0 && positives < seen).then(|| sum / positives)
}

/// The number of points and the number of positives with each score, in the order of the scores.
fn tied_groups(points: &[(f64, bool)], order: impl Fn(f64, f64) -> std::cmp::Ordering) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| order(a.0, b.0));
    let groups = sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq());
    groups.map(|group| (group.len() as f64, group.iter().filter(|(_, positive)| *positive).count() as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_equal_hand_computed_ones() {
        // 3 of the 2 × 2 pairs are in order.
        let points = [(0.9, true), (0.4, true), (0.5, false), (0.1, false)];
        assert_eq!(area_under_roc(&points), Some(0.75));
        // Precision 1/1 and 2/3 at the positives.
        assert!((average_precision(&points).unwrap() - f64::midpoint(1.0, 2.0 / 3.0)).abs() < 1e-12);
        let tie = [(1.0, true), (1.0, false), (1.0, false), (1.0, false)];
        assert_eq!((area_under_roc(&tie), average_precision(&tie)), (Some(0.5), Some(0.25)));
        let perfect = [(2.0, true), (1.0, false)];
        assert_eq!((area_under_roc(&perfect), average_precision(&perfect)), (Some(1.0), Some(1.0)));
        assert_eq!((area_under_roc(&[(1.0, true)]), average_precision(&[(1.0, false)])), (None, None));
    }
}
