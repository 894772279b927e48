//! The bodies of requests to `/correspondence`, for the `OpenAPI` document.

use utoipa::ToSchema;

use super::parameters::CorrespondenceQuery;

/// The form of a request. Parameters can stand in the query as well.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the form, which is read part by part")]
pub(super) struct CorrespondenceForm {
    /// The image whose points are looked for; not with `source_id`.
    #[schema(value_type = Option<String>, format = Binary)]
    source: Option<Vec<u8>>,
    /// The image that they are looked for in; several parts of this name are several images. There can be none with `target_id`.
    #[schema(value_type = Option<String>, format = Binary)]
    target: Option<Vec<u8>>,
    /// Labels of the source's pixels, to be carried over to the target instead of points: a PNG with a palette, or grey with at most 8 bits, as large as the upright source.
    #[schema(value_type = Option<String>, format = Binary)]
    mask: Option<Vec<u8>>,
    #[schema(inline)]
    #[serde(flatten)]
    ids: FeatureIdFields,
    #[schema(inline)]
    #[serde(flatten)]
    query: CorrespondenceQuery,
}

/// The JSON object of a request. Parameters are fields, too, as JSON has them (`"points": [[12.5, 40]]`) or as text.
/// Instead of `source` there can be `source_id`, and instead of `target`, or beside it, `target_id`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct CorrespondenceObject {
    /// The image whose points are looked for, in standard base64.
    source: Option<String>,
    /// The images that they are looked for in, in standard base64; of a single one the list may be left away.
    #[schema(min_items = 1, example = json!(["iVBORw0KGgo…"]))]
    target: Option<Vec<String>>,
    /// See the form's part of this name; in standard base64.
    mask: Option<String>,
    #[schema(inline)]
    #[serde(flatten)]
    ids: FeatureIdFields,
    #[schema(inline)]
    #[serde(flatten)]
    query: CorrespondenceQuery,
}

/// Features of an earlier request, instead of images.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the fields, which are read apart")]
struct FeatureIdFields {
    /// The `Densecl-Feature-Id` of an earlier reply, instead of `source`: no second upload. `model`, `version`, `layer` and `side` are then those of the id. An id expires when its features have not been asked for in a while; the answer is then 404, and the image must be sent again. `png` takes images, not ids.
    #[schema(example = "3b1e9a2c5d7f4e6081a2b3c4d5e6f708")]
    source_id: Option<String>,
    /// The same instead of `target`, or beside it: several are a list in JSON, and several parts of a form. Targets that are uploaded come first in the answer.
    #[schema(value_type = Option<Vec<String>>, example = json!(["3b1e9a2c5d7f4e6081a2b3c4d5e6f708"]))]
    target_id: Option<Vec<String>>,
}
