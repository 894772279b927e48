//! Requests and replies of inference, in the `OpenAPI` document.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::http::schema::{component, item, list, nullable, nullable_list, object, value};

/// A request as JSON.
pub(super) struct InferenceObject;

impl PartialSchema for InferenceObject {
    fn schema() -> RefOr<Schema> {
        let inputs = list(component(&InferenceInput::name()), "One, `images`.").min_items(Some(1)).max_items(Some(1));
        object("A request as JSON. In the binary form a tensor has `binary_data_size` among its parameters instead of `data`, and\nits bytes follow the JSON, whose length `Inference-Header-Content-Length` says.")
            .property("id", nullable(Type::String, "Comes back in the reply."))
            .property("parameters", nullable(Type::Object, "`binary_data_output`: whether outputs come as bytes. `pool`: `mean`, `max` or `gem`, for one vector of each layer instead of a map. `normalize`: `l2` for vectors of length 1, `none` by default."))
            .property("inputs", inputs)
            .required("inputs")
            .property("outputs", nullable_list(component(&InferenceOutput::name()), "All outputs if not given."))
            .into()
    }
}

impl ToSchema for InferenceObject {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((InferenceInput::name().into(), InferenceInput::schema()));
        schemas.push((InferenceOutput::name().into(), InferenceOutput::schema()));
    }
}

/// The images of a request.
struct InferenceInput;

impl PartialSchema for InferenceInput {
    fn schema() -> RefOr<Schema> {
        let size = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0));
        let shape = list(size, "`[N, height, width, 3]`; height and width are multiples of 32.");
        object("The images.")
            .property("name", value(Type::String, "`images`").pattern(Some("^images$")))
            .required("name")
            .property("datatype", value(Type::String, "`UINT8`").pattern(Some("^UINT8$")))
            .required("datatype")
            .property("shape", shape.min_items(Some(4)).max_items(Some(4)))
            .required("shape")
            .property("parameters", nullable(Type::Object, "`binary_data_size`: bytes of the tensor behind the JSON."))
            .property("data", nullable_list(item(Type::Object), "RGB, flat or nested as the shape is."))
            .into()
    }
}

impl ToSchema for InferenceInput {}

/// An output that a request names.
struct InferenceOutput;

impl PartialSchema for InferenceOutput {
    fn schema() -> RefOr<Schema> {
        object("An output that is asked for.")
            .property("name", value(Type::String, "A layer of the model, or `global`."))
            .required("name")
            .property(
                "parameters",
                nullable(
                    Type::Object,
                    "`binary_data`: whether it comes as bytes. `pool`: as that of the request, for this output.",
                ),
            )
            .into()
    }
}

impl ToSchema for InferenceOutput {}

/// A reply as JSON.
pub(super) struct InferenceReply;

impl PartialSchema for InferenceReply {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let outputs = list(item(Type::Object), "Name, `datatype` (`FP32`), `shape` and `data` of each output.");
        object("A reply as JSON. In the binary form an output has `binary_data_size` among its parameters instead of `data`.")
            .property("model_name", text())
            .required("model_name")
            .property("model_version", text())
            .required("model_version")
            .property("id", nullable(Type::String, "That of the request."))
            .property("outputs", outputs)
            .required("outputs")
            .into()
    }
}

impl ToSchema for InferenceReply {}
