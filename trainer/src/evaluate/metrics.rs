//! Counting what was predicted for what, and the measures of it.

use tch::{Device, Kind, Tensor};

/// Label of pixels that are neither trained on nor counted.
pub const VOID: u8 = 255;

/// Counts of predictions: a row for each true class, a column for each predicted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// Nothing counted yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts pairs of int64 labels of equal shape; truths of [`VOID`] are left out. Both are
    /// below the number of classes otherwise.
    pub fn add(&mut self, truth: &Tensor, predicted: &Tensor) {
        let classes = self.classes as i64;
        let counted = truth.not_equal(i64::from(VOID));
        let (truth, predicted) = (truth.masked_select(&counted), predicted.masked_select(&counted)); // [M]
        let cells = (truth * classes + predicted).bincount(None::<Tensor>, classes * classes); // [K·K]
        let mut added = vec![0_i64; self.counts.len()];
        cells.to_device(Device::Cpu).to_kind(Kind::Int64).copy_data(&mut added, self.counts.len());
        for (count, added) in self.counts.iter_mut().zip(added) {
            *count += added as u64;
        }
    }

    fn row(&self, class: usize) -> u64 {
        self.counts[class * self.classes..][..self.classes].iter().sum()
    }

    fn column(&self, class: usize) -> u64 {
        self.counts.iter().skip(class).step_by(self.classes).sum()
    }

    fn hits(&self, class: usize) -> u64 {
        self.counts[class * (self.classes + 1)]
    }

    /// Share of all that was predicted right.
    pub fn accuracy(&self) -> f64 {
        let hits: u64 = (0..self.classes).map(|class| self.hits(class)).sum();
        hits as f64 / self.counts.iter().sum::<u64>() as f64
    }

    /// Mean over the classes that occur of the share of each that was predicted right.
    pub fn mean_class_accuracy(&self) -> f64 {
        mean((0..self.classes).map(|class| ratio(self.hits(class), self.row(class))))
    }

    /// Intersection over union of each class; `None` where it neither occurs nor was predicted.
    pub fn ious(&self) -> Vec<Option<f64>> {
        let iou = |class| ratio(self.hits(class), self.row(class) + self.column(class) - self.hits(class));
        (0..self.classes).map(iou).collect()
    }

    /// Mean of [`ConfusionMatrix::ious`] over the classes that have one (Everingham et al., *The
    /// PASCAL Visual Object Classes Challenge: A Retrospective*, section 3.3).
    pub fn mean_iou(&self) -> f64 {
        mean(self.ious().into_iter())
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let values: Vec<f64> = values.flatten().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn measures_are_those_computed_by_hand() {
        let mut matrix = ConfusionMatrix::new(4);
        // Class 3 neither occurs nor is predicted; 255 is not counted whatever is predicted there.
        matrix.add(&Tensor::from_slice(&[0_i64, 0, 0, 1, 255]), &Tensor::from_slice(&[0_i64, 0, 1, 1, 2]));
        matrix.add(&Tensor::from_slice(&[2_i64, 2, 1]), &Tensor::from_slice(&[2_i64, 0, 1]));
        assert!(close(matrix.accuracy(), 5.0 / 7.0));
        assert!(close(matrix.mean_class_accuracy(), (2.0 / 3.0 + 1.0 + 0.5) / 3.0));
        let ious = matrix.ious();
        assert_eq!(ious, [Some(2.0 / 4.0), Some(2.0 / 3.0), Some(1.0 / 2.0), None]);
        assert!(close(matrix.mean_iou(), (0.5 + 2.0 / 3.0 + 0.5) / 3.0));
    }

    #[test]
    fn a_class_that_is_only_predicted_counts_as_missed() {
        let mut matrix = ConfusionMatrix::new(2);
        matrix.add(&Tensor::from_slice(&[0_i64, 0]), &Tensor::from_slice(&[0_i64, 1]));
        assert_eq!(matrix.ious(), [Some(0.5), Some(0.0)]);
        assert!(close(matrix.mean_iou(), 0.25));
        assert!(close(matrix.mean_class_accuracy(), 0.5), "of the class that occurs");
    }
}
