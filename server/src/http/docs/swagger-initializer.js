// Starts Swagger UI, in place of the script of this name that comes with it.
//
// All addresses are relative: the page also works under a prefix.

/**
 * Leaves the parts of a form empty, and does not send those that stay so. Swagger UI would fill in samples of its own
 * making, which contradict one another, and send empty parts.
 */
const EmptyParts = ({ React }) => ({
  components: { ParameterIncludeEmpty: () => null },
  wrapComponents: {
    JsonSchemaForm: (Original) => function FormPart(props) {
      const [isEdited, setEdited] = React.useState(false);
      const isPart = props.dispatchInitialValue !== undefined;
      if (!isPart) return React.createElement(Original, props);
      const onChange = (value) => {
        setEdited(true);
        props.onChange(value);
      };
      const value = isEdited ? props.value : "";
      return React.createElement(Original, { ...props, value, onChange, dispatchInitialValue: undefined });
    },
  },
});

window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "../openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    plugins: [SwaggerUIBundle.plugins.DownloadUrl, EmptyParts],
    layout: "StandaloneLayout",
  });
});
