//! The bodies of requests to `/correspondence`, in the `OpenAPI` document.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::parameters::CorrespondenceQuery;
use crate::http::schema::{binary, item, nullable, nullable_list, object};

/// The form of a request. Parameters can stand in the query as well.
pub(super) struct CorrespondenceForm;

impl PartialSchema for CorrespondenceForm {
    fn schema() -> RefOr<Schema> {
        let file = |description| binary(nullable(Type::String, description));
        let images = ObjectBuilder::new()
            .property("source", file("The image whose points are looked for; not with `source_id`."))
            .property("target", file("The image that they are looked for in; several parts of this name are several images. There can be none with `target_id`."))
            .property("mask", file("Labels of the source's pixels, to be carried over to the target instead of points: a PNG with a palette, or grey with at most 8 bits, as large as the upright source."));
        let mut form =
            images.description(Some("The form of a request. Parameters can stand in the query as well.")).build();
        for parameters in [feature_ids().into(), CorrespondenceQuery::schema()] {
            if let RefOr::T(Schema::Object(parameters)) = parameters {
                form.properties.extend(parameters.properties);
            }
        }
        form.properties.values_mut().for_each(remove_null);
        RefOr::T(Schema::Object(form))
    }
}

impl ToSchema for CorrespondenceForm {}

/// The JSON object of a request.
pub(super) struct CorrespondenceObject;

impl PartialSchema for CorrespondenceObject {
    fn schema() -> RefOr<Schema> {
        let target = nullable_list(
            item(Type::String),
            "The images that they are looked for in, in standard base64; of a single one the list may be left away.",
        );
        let target = target.min_items(Some(1));
        let images = ObjectBuilder::new()
            .property("source", nullable(Type::String, "The image whose points are looked for, in standard base64."))
            .property("target", target)
            .property("mask", nullable(Type::String, "See the form's part of this name; in standard base64."));
        with_parameters(
            images,
            "The JSON object of a request. Parameters are fields, too, as JSON has them (`\"points\": [[12.5, 40]]`) or as text.\nInstead of `source` there can be `source_id`, and instead of `target`, or beside it, `target_id`.",
        )
    }
}

impl ToSchema for CorrespondenceObject {}

/// Removes null from the types of a schema: the parts of a form are text.
fn remove_null(schema: &mut RefOr<Schema>) {
    let schema_type = match schema {
        RefOr::T(Schema::Object(object)) => &mut object.schema_type,
        RefOr::T(Schema::Array(array)) => &mut array.schema_type,
        RefOr::T(_) | RefOr::Ref(_) => return,
    };
    if let SchemaType::Array(types) = schema_type {
        types.retain(|it| *it != Type::Null);
        if let [only] = &types[..] {
            *schema_type = SchemaType::Type(only.clone());
        }
    }
}

/// The images of a body, beside ids and parameters.
fn with_parameters(images: ObjectBuilder, description: &str) -> RefOr<Schema> {
    let body = AllOfBuilder::new().item(feature_ids()).item(CorrespondenceQuery::schema()).item(images);
    body.description(Some(description)).into()
}

fn feature_ids() -> ObjectBuilder {
    let source = nullable(
        Type::String,
        "The `Densecl-Feature-Id` of an earlier reply, instead of `source`: no second upload. `model`, `version`, `layer` and `side` are then those of the id. An id expires when its features have not been asked for in a while; the answer is then 404, and the image must be sent again. `png` takes images, not ids.",
    );
    let target = nullable_list(
        item(Type::String),
        "The same instead of `target`, or beside it: several are a list in JSON, and several parts of a form. Targets that are uploaded come first in the answer.",
    );
    object("Features of an earlier request, instead of images.")
        .property("source_id", source)
        .property("target_id", target)
}
