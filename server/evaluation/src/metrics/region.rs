//! Region similarity of masks.

/// Region similarity J of DAVIS (Perazzi et al., CVPR 2016, section 4.1): the intersection over union of the pixels with
/// `label` in `found` and in `truth`; 1 if neither has it.
pub fn region_similarity(found: &[u8], truth: &[u8], label: u8) -> f64 {
    let (mut both, mut either) = (0_u32, 0_u32);
    for (&found, &truth) in found.iter().zip(truth) {
        both += u32::from(found == label && truth == label);
        either += u32::from(found == label || truth == label);
    }
    if either == 0 { 1.0 } else { f64::from(both) / f64::from(either) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersection_over_union_by_hand() {
        let truth = [0, 1, 1, 1, 2, 0];
        let found = [1, 1, 1, 0, 2, 2];
        assert!((region_similarity(&found, &truth, 1) - 0.5).abs() < 1e-12);
        assert!((region_similarity(&found, &truth, 2) - 0.5).abs() < 1e-12);
        assert!((region_similarity(&found, &truth, 9) - 1.0).abs() < 1e-12);
    }
}
