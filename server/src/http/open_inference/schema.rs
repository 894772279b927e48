//! Requests and replies of inference, for the `OpenAPI` document.

/// A request as JSON. In the binary form a tensor has `binary_data_size` among its parameters instead of `data`, and
/// its bytes follow the JSON, whose length `Inference-Header-Content-Length` says.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct InferenceObject {
    /// Comes back in the reply.
    id: Option<String>,
    /// `binary_data_output`: whether outputs come as bytes.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
    /// One, `images`.
    #[schema(min_items = 1, max_items = 1)]
    inputs: Vec<InputObject>,
    /// All outputs if not given.
    outputs: Option<Vec<OutputObject>>,
}

/// The images.
#[derive(utoipa::ToSchema)]
#[schema(as = InferenceInput)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct InputObject {
    /// `images`
    #[schema(pattern = "^images$")]
    name: String,
    /// `UINT8`
    #[schema(pattern = "^UINT8$")]
    datatype: String,
    /// `[N, height, width, 3]`; height and width are multiples of 32.
    #[schema(min_items = 4, max_items = 4, minimum = 0)]
    shape: Vec<u64>,
    /// `binary_data_size`: bytes of the tensor behind the JSON.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
    /// RGB, flat or nested as the shape is.
    #[schema(value_type = Option<Vec<Object>>)]
    data: Option<()>,
}

/// An output that is asked for.
#[derive(utoipa::ToSchema)]
#[schema(as = InferenceOutput)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct OutputObject {
    /// A layer of the model, or `global`.
    name: String,
    /// `binary_data`: whether it comes as bytes.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
}

/// A reply as JSON. In the binary form an output has `binary_data_size` among its parameters instead of `data`.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is written piece by piece")]
pub(super) struct InferenceReply {
    model_name: String,
    model_version: String,
    /// That of the request.
    id: Option<String>,
    /// Name, `datatype` (`FP32`), `shape` and `data` of each output.
    #[schema(value_type = Vec<Object>)]
    outputs: Vec<()>,
}
