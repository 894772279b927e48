//! The bodies of requests to `/features`, for the `OpenAPI` document.

/// The form of a request.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the form, which is read part by part")]
pub(super) struct FeaturesForm {
    /// An image; several parts of this name are several images. All parameters of the query can be parts, too.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
}

/// The JSON object of a request.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct FeaturesObject {
    /// Images in standard base64. All parameters of the query can be fields, too: as JSON has them (`"side": 512`, `"points": [[12.5, 40]]`) or as text.
    #[schema(min_items = 1, example = json!(["iVBORw0KGgo…"]))]
    images: Vec<String>,
}
