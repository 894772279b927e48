//! `config.json` beside the weights of Hugging Face's ResNet: what of the network the names do not tell.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Longest file that is read; a configuration has a few kilobytes (a thousand class names among them).
const MAX_BYTES: u64 = 4 << 20;

/// A configuration of another network than torchvision's.
#[derive(Debug, thiserror::Error)]
#[error("{path} says `{key}`: {found}; such a ResNet computes something else than torchvision's, and is not read")]
pub struct ConfigError {
    /// The configuration.
    pub path: String,
    /// Its key.
    pub key: &'static str,
    /// The key's value.
    pub found: String,
}

/// Checks the `config.json` beside a file of weights: strides must be where torchvision has them, and the activation ReLU.
/// A configuration that is missing, or of something else than a ResNet, is ignored.
///
/// # Errors
/// If the network is another one.
pub fn check_transformers_config(weights: &Path) -> Result<(), ConfigError> {
    let path = weights.with_file_name("config.json");
    let is_short = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_BYTES);
    let config = is_short.then(|| fs::read(&path).ok()).flatten();
    let Some(config) = config.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else { return Ok(()) };
    if config["model_type"] != "resnet" {
        return Ok(());
    }
    let expected: [(&str, Value); 3] = [
        ("downsample_in_first_stage", false.into()),
        ("downsample_in_bottleneck", false.into()),
        ("hidden_act", "relu".into()),
    ];
    match expected.into_iter().find(|(key, value)| config.get(key).is_some_and(|found| found != value)) {
        Some((key, _)) => Err(ConfigError { path: path.display().to_string(), key, found: config[key].to_string() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_that_compute_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("pytorch_model.bin");
        let check = |config: &str| {
            fs::write(folder.path().join("config.json"), config).unwrap();
            check_transformers_config(&weights).map_err(|error| error.to_string())
        };
        assert!(check_transformers_config(&weights).is_ok());
        let plain =
            r#"{"model_type": "resnet", "hidden_act": "relu", "downsample_in_first_stage": false, "depths": [2]}"#;
        for config in [plain, "no json", r#"{"model_type": "vit", "hidden_act": "gelu"}"#, "[]"] {
            assert_eq!(check(config), Ok(()), "{config}");
        }
        for (key, value) in
            [("downsample_in_bottleneck", "true"), ("downsample_in_first_stage", "true"), ("hidden_act", "\"gelu\"")]
        {
            let error = check(&format!(r#"{{"model_type": "resnet", "{key}": {value}}}"#)).unwrap_err();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }
}
