//! `source_id` and `target_id`: ids of features of earlier requests, sent instead of images.

use std::sync::Arc;

use futures_util::future::try_join_all;

use crate::cache::{CachedFeatures, Recipe};
use crate::http::request::{Parameters, RequestError};
use crate::serving::known_features::find_known_features;
use crate::serving::{SelectionChoice, Service, ServingError};

const SOURCE: &str = "source_id";
const TARGET: &str = "target_id";
/// The names of both parameters.
pub(super) const NAMES: [&str; 2] = [SOURCE, TARGET];

/// The feature ids of a request, as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamedFeatures {
    source: Option<String>,
    targets: Vec<String>,
}

/// The cached features that the ids of a request name.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownFeatures {
    pub(super) source: Option<Arc<CachedFeatures>>,
    pub(super) targets: Vec<Arc<CachedFeatures>>,
}

impl NamedFeatures {
    /// Removes the ids from the parameters.
    pub(super) fn take_from(parameters: &mut Parameters) -> Result<Self, RequestError> {
        let mut sources = parameters.take_all(SOURCE).into_iter();
        let source = sources.next();
        if sources.next().is_some() {
            return Err(RequestError::malformed(SOURCE, "it is given more than once"));
        }
        let mut targets = Vec::new();
        for text in parameters.take_all(TARGET) {
            // A JSON list arrives as its text.
            if text.starts_with('[') {
                let list: Vec<String> = serde_json::from_str(&text)
                    .map_err(|_| RequestError::malformed(TARGET, "it is not an id, or a list of ids"))?;
                targets.extend(list);
            } else {
                targets.push(text);
            }
        }
        Ok(Self { source, targets })
    }

    /// Refuses the request if the `uploaded` images and these are more than `limit`.
    pub(super) fn check_count(&self, uploaded: usize, limit: usize) -> Result<(), RequestError> {
        let named = usize::from(self.source.is_some()) + self.targets.len();
        if named > 0 && uploaded + named > limit { Err(RequestError::TooManyImages { limit }) } else { Ok(()) }
    }

    /// Looks up the features.
    ///
    /// # Errors
    /// [`ServingError::UnknownFeatureId`] if an id names none.
    pub(super) async fn look_up(&self, service: &Service) -> Result<KnownFeatures, ServingError> {
        let source = async {
            match &self.source {
                Some(id) => find_known_features(service, id).await.map(Some),
                None => Ok(None),
            }
        };
        let targets = try_join_all(self.targets.iter().map(|id| find_known_features(service, id)));
        let (source, targets) = tokio::try_join!(source, targets)?;
        Ok(KnownFeatures { source, targets })
    }
}

impl KnownFeatures {
    /// Returns the recipe that all features were computed by; `None` if there are no features.
    ///
    /// # Errors
    /// [`RequestError::Conflict`] if the recipes differ from each other or from `choice`.
    pub(super) fn recipe(&self, choice: &SelectionChoice<'_>) -> Result<Option<&Recipe>, RequestError> {
        let mut all = self.named();
        let Some((name, features)) = all.next() else { return Ok(None) };
        let recipe = &*features.key.recipe;
        if let Some((other_name, other)) = all.find(|(_, other)| *other.key.recipe != *recipe) {
            let (one, other) = (describe(recipe), describe(&other.key.recipe));
            let reason =
                format!("`{name}` is of {one}, and `{other_name}` of {other}: only like features can be compared");
            return Err(RequestError::Conflict(reason));
        }
        for (parameter, given, own) in [
            ("model", choice.model.map(str::to_owned), recipe.model.clone()),
            ("version", choice.version.map(|version| version.to_string()), recipe.version.to_string()),
            ("layer", choice.layer.map(str::to_owned), recipe.layer_name()),
            ("side", choice.side.map(|side| side.to_string()), recipe.side_px.to_string()),
        ] {
            if let Some(given) = given.filter(|given| *given != own) {
                let reason = format!("`{parameter}` is {given}, and the features of `{name}` have {parameter} {own}");
                return Err(RequestError::Conflict(reason));
            }
        }
        Ok(Some(recipe))
    }

    /// Refuses to draw the matches if there are any features: the pixels of their images are not kept.
    pub(super) fn check_none_for_picture(&self) -> Result<(), RequestError> {
        match self.named().next() {
            Some((name, _)) => {
                let image = name.trim_end_matches("_id");
                let reason = format!(
                    "`png` draws the images, and of `{name}` only features are kept: upload the image as `{image}`, or ask for another format"
                );
                Err(RequestError::Conflict(reason))
            }
            None => Ok(()),
        }
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Arc<CachedFeatures>)> {
        let source = self.source.iter().map(|features| (SOURCE, features));
        source.chain(self.targets.iter().map(|features| (TARGET, features)))
    }
}

fn describe(recipe: &Recipe) -> String {
    format!("{}/{} {} at {} px", recipe.model, recipe.version, recipe.layer_name(), recipe.side_px)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{CachedMaps, FeatureKey};
    use densecl_inference::backend::LayerSet;
    use densecl_vision::image::ImageSize;

    fn named(query: &str) -> Result<NamedFeatures, RequestError> {
        let mut parameters = Parameters::new(10);
        parameters.push_query(Some(query)).unwrap();
        let named = NamedFeatures::take_from(&mut parameters)?;
        assert!(parameters.as_slice().iter().all(|(name, _)| !name.ends_with("_id")), "they are taken out");
        Ok(named)
    }

    #[test]
    fn several_target_ids_are_repeated_parameters_or_a_list() {
        let expected = NamedFeatures { source: Some("a".into()), targets: vec!["b".into(), "c".into()] };
        assert_eq!(named("source_id=a&target_id=b&side=64&target_id=c").unwrap(), expected);
        assert_eq!(named(r#"target_id=["b","c"]&source_id=a"#).unwrap(), expected);
        assert_eq!(named("source_id=&target_id=").unwrap(), NamedFeatures::default());
        for wrong in ["source_id=a&source_id=b", "target_id=[1]", "target_id=[\"a\""] {
            assert!(matches!(named(wrong), Err(RequestError::MalformedParameter { .. })), "{wrong}");
        }
    }

    #[test]
    fn ids_count_as_images() {
        let two = named("source_id=a&target_id=b").unwrap();
        assert!(two.check_count(1, 3).is_ok());
        assert!(matches!(two.check_count(2, 3), Err(RequestError::TooManyImages { limit: 3 })));
    }

    #[test]
    fn parameters_that_contradict_an_id_are_refused() {
        let features = |side_px| {
            let layers = LayerSet::new(["res3", "res4"]).unwrap();
            let recipe = Recipe { model: "m".into(), version: 2, digest: [0; 32], layers, side_px };
            let image = ImageSize { width: 1, height: 1 };
            let key = FeatureKey::from_file(b"", Arc::new(recipe));
            Arc::new(CachedFeatures { key, image, maps: CachedMaps::Layers(Vec::new()) })
        };
        let known = |sides: &[u32]| KnownFeatures {
            source: Some(features(64)),
            targets: sides.iter().copied().map(features).collect(),
        };
        let choice = SelectionChoice { model: Some("m"), version: Some(2), layer: Some("res3+res4"), side: Some(64) };
        assert_eq!(known(&[64]).recipe(&choice).unwrap().unwrap().side_px, 64);
        assert!(known(&[64]).recipe(&SelectionChoice::default()).is_ok());
        assert!(KnownFeatures::default().recipe(&choice).unwrap().is_none());
        for (choice, expected) in [
            (
                SelectionChoice { model: Some("n"), ..choice.clone() },
                "`model` is n, and the features of `source_id` have model m",
            ),
            (SelectionChoice { version: Some(1), ..choice.clone() }, "`version` is 1"),
            (SelectionChoice { layer: Some("res4+res3"), ..choice.clone() }, "`layer` is res4+res3"),
            (SelectionChoice { side: Some(96), ..choice.clone() }, "`side` is 96"),
        ] {
            let error = known(&[64]).recipe(&choice).unwrap_err();
            assert!(matches!(&error, RequestError::Conflict(reason) if reason.contains(expected)), "{error}");
        }
        let error = known(&[64, 96]).recipe(&choice).unwrap_err().to_string();
        assert!(error.contains("m/2 res3+res4 at 64 px") && error.contains("m/2 res3+res4 at 96 px"), "{error}");
    }
}
