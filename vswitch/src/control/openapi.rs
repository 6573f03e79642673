//! The OpenAPI 3.1 document of the API, made from the table of its resources and the types that they speak of.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::api::ErrorBody;
use super::routes::{Answer, Parameter, Route};

/// The document.
pub(super) fn document(routes: &[Route]) -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        // What a reference points to stands where OpenAPI wants it (OpenAPI 3.1.0 section 4.8.7).
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths: Map<String, Json> = Map::new();
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.to_owned(), operation(route, &error.clone().into(), &mut generator));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "vswitch",
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "http://vswitch", "description": "The unix socket in the state directory"}],
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    })
}

fn operation(route: &Route, error: &Json, generator: &mut SchemaGenerator) -> Json {
    let content = match route.answer {
        Answer::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
        Answer::Text(media) => json!({media: {"schema": {"type": "string"}}}),
        // No schema: any octets (OpenAPI 3.1.0 section 4.8.14.2).
        Answer::Octets(media) => json!({media: {}}),
    };
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "responses": {
            "200": {"description": route.summary, "content": content},
            "default": {
                "description": "Why not, in a sentence",
                "content": {"application/json": {"schema": error}},
            },
        },
    });
    let Some(fields) = operation.as_object_mut() else { return operation };
    if !route.parameters.is_empty() {
        let parameters = route.parameters.iter();
        let parameters = parameters.map(|p| parameter(route, p, generator)).collect::<Vec<Json>>();
        fields.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(schema) = route.request {
        let content = json!({"application/json": {"schema": schema(generator)}});
        fields.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    operation
}

fn parameter(route: &Route, parameter: &Parameter, generator: &mut SchemaGenerator) -> Json {
    let within = if route.path.contains(&format!("{{{}}}", parameter.name)) { "path" } else { "query" };
    json!({
        "name": parameter.name,
        "in": within,
        "required": !parameter.optional,
        "description": parameter.description,
        "schema": (parameter.schema)(generator),
    })
}

/// A name that tells operations apart: `get /v1/objects/{kind}` is `get_v1_objects_kind`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(route.method).chain(words).collect::<Vec<&str>>().join("_")
}
