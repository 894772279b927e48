//! The bodies of requests to `/features`, in the `OpenAPI` document.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::http::schema::{binary, item, list, object, value};

/// The form of a request.
pub(super) struct FeaturesForm;

impl PartialSchema for FeaturesForm {
    fn schema() -> RefOr<Schema> {
        let image = value(
            Type::String,
            "An image; several parts of this name are several images. All parameters of the query can be parts, too.",
        );
        object("The form of a request.").property("image", binary(image)).required("image").into()
    }
}

impl ToSchema for FeaturesForm {}

/// The JSON object of a request.
pub(super) struct FeaturesObject;

impl PartialSchema for FeaturesObject {
    fn schema() -> RefOr<Schema> {
        let images = list(
            item(Type::String),
            "Images in standard base64. All parameters of the query can be fields, too: as JSON has them (`\"side\": 512`, `\"points\": [[12.5, 40]]`) or as text.",
        );
        let images = images.min_items(Some(1));
        object("The JSON object of a request.").property("images", images).required("images").into()
    }
}

impl ToSchema for FeaturesObject {}
