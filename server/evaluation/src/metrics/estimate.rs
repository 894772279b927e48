//! Means with their standard errors.

use serde::Serialize;

/// A mean over samples and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The weighted mean.
    pub mean: f64,
    /// The standard error; 0 for a single sample.
    pub standard_error: f64,
    /// Number of samples.
    pub count: usize,
}

impl Estimate {
    /// The estimate from samples `(value, weight)`; `None` if the weights add up to 0.
    ///
    /// With equal weights the standard error is the sample standard deviation divided by the root of the count. With other
    /// weights the mean is a ratio of two sums, and its standard error is that of the linearised ratio (Cochran, *Sampling
    /// Techniques*, 3rd edition, section 6.3): `√(Σ wᵢ²(vᵢ − mean)² / (n (n − 1))) / mean weight`.
    pub fn from_weighted(samples: &[(f64, f64)]) -> Option<Self> {
        let count = samples.len() as f64;
        let total: f64 = samples.iter().map(|(_, weight)| weight).sum();
        if total.is_nan() || total <= 0.0 {
            return None;
        }
        let mean = samples.iter().map(|(value, weight)| value * weight).sum::<f64>() / total;
        let squares: f64 = samples.iter().map(|(value, weight)| (weight * (value - mean)).powi(2)).sum();
        let standard_error =
            if samples.len() > 1 { (squares / (count * (count - 1.0))).sqrt() / (total / count) } else { 0.0 };
        Some(Self { mean, standard_error, count: samples.len() })
    }

    /// The mean of independent means with equal weights; `None` if there are none.
    pub fn from_means(parts: &[Self]) -> Option<Self> {
        let count = parts.len() as f64;
        let mean = parts.iter().map(|part| part.mean).sum::<f64>() / count;
        let standard_error = parts.iter().map(|part| part.standard_error.powi(2)).sum::<f64>().sqrt() / count;
        (!parts.is_empty()).then(|| Self { mean, standard_error, count: parts.iter().map(|part| part.count).sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_give_the_standard_error_of_the_mean() {
        let samples = [1.0, 2.0, 3.0, 4.0].map(|value| (value, 7.0));
        let estimate = Estimate::from_weighted(&samples).unwrap();
        assert!((estimate.mean - 2.5).abs() < 1e-12);
        assert!((estimate.standard_error - (5.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(Estimate::from_weighted(&[(0.5, 1.0)]), Some(Estimate { mean: 0.5, standard_error: 0.0, count: 1 }));
        assert_eq!(Estimate::from_weighted(&[]), None);
        assert_eq!(Estimate::from_weighted(&[(0.5, 0.0)]), None);
    }

    #[test]
    fn weights_make_a_ratio() {
        // 1 of 1 and 1 of 3 right: 2 of 4. By hand: √((1·0.5)² + (3·(1/3 − 0.5))²) / √(2·1) / 2 = √0.5/√2/2 = 0.25.
        let estimate = Estimate::from_weighted(&[(1.0, 1.0), (1.0 / 3.0, 3.0)]).unwrap();
        assert!((estimate.mean - 0.5).abs() < 1e-12 && (estimate.standard_error - 0.25).abs() < 1e-12, "{estimate:?}");
    }

    #[test]
    fn means_have_equal_weights() {
        let part = |mean, standard_error, count| Estimate { mean, standard_error, count };
        let estimate = Estimate::from_means(&[part(0.2, 0.03, 10), part(0.6, 0.04, 2)]).unwrap();
        assert!((estimate.mean - 0.4).abs() < 1e-12 && (estimate.standard_error - 0.025).abs() < 1e-12);
        assert_eq!((estimate.count, Estimate::from_means(&[])), (12, None));
    }
}
