//! The MCP tools, one file each, and what they have in common.
//!
//! A tool takes its arguments apart, calls `patchwire-client`, and renders what came: as the
//! command line does for people, and as its JSON for programs.

use std::mem;

use anyhow::anyhow;
use patchwire_client::report::ReportedError;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations,
};
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{failure::Failure, output};

pub(crate) mod app_logs;
pub(crate) mod app_status;
pub(crate) mod push_changes;

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// For whoever reads the conversation.
    text: String,
    /// For programs. It always holds `error`, which is null where all is well.
    structured: JsonObject,
    is_error: bool,
}

impl Outcome {
    /// Shows a report, which is bad news if `is_error`.
    fn new(text: String, report: &impl Serialize, is_error: bool) -> Self {
        let mut structured = match serde_json::to_value(report) {
            Ok(Value::Object(fields)) => fields,
            // Reports are structs with text for keys.
            Ok(_) | Err(_) => Map::new(),
        };
        structured.entry("error").or_insert(Value::Null);
        Self {
            text,
            structured,
            is_error,
        }
    }
}

impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        let error = json!({"error": {"code": failure.code, "message": failure.message()}});
        Self::new(output::failure_text(failure), &error, true)
    }
}

impl From<Outcome> for CallToolResponse {
    fn from(outcome: Outcome) -> Self {
        let mut result = match outcome.is_error {
            true => CallToolResult::error,
            false => CallToolResult::success,
        }(vec![ContentBlock::text(outcome.text)]);
        result.structured_content = Some(Value::Object(outcome.structured));
        result.into()
    }
}

/// Describes a tool that takes `A` and reports `R`.
fn definition<A: JsonSchema, R: JsonSchema>(
    name: &'static str,
    title: &str,
    description: &'static str,
    mut annotations: ToolAnnotations,
) -> Tool {
    // Older clients look for it there.
    annotations.title = Some(title.to_owned());
    Tool::new(name, description, input_schema::<A>())
        .with_title(title)
        .with_raw_output_schema(output_schema::<R>().into())
        .with_annotations(annotations)
}

/// Takes a call's arguments apart, and names the one that is none.
fn parse<A: DeserializeOwned>(arguments: JsonObject) -> Result<A, Failure> {
    let parse = |arguments| serde_json::from_value(Value::Object(arguments));
    // Every argument is optional, so that one alone tells whether it is right.
    for (name, value) in &arguments {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = parse(alone).map(|_: A| ()) {
            let name = name.escape_debug();
            return Err(Failure::usage(anyhow!("the argument “{name}”: {error}")));
        }
    }
    parse(arguments).map_err(Failure::usage)
}

fn input_schema<A: JsonSchema>() -> JsonObject {
    // Null is taken for what isn't given, but nobody has to know.
    schema::<A>(SchemaSettings::draft2020_12().for_deserialize(), |other| {
        other
    })
}

/// A report's schema, which what is said in its place also fits: `{"error": …}`.
fn output_schema<R: JsonSchema>() -> JsonObject {
    let settings = || SchemaSettings::draft2020_12().for_serialize();
    let mut report = schema::<R>(settings(), or_null);
    report.insert("required".to_owned(), json!(["error"]));
    if let Some(Value::Object(properties)) = report.get_mut("properties") {
        let mut error = or_null(schema::<ReportedError>(settings(), or_null));
        let description = "Why it did not end as wished; null where it did. Of the other fields, \
                           those that are not known are missing then.";
        error.insert("description".to_owned(), description.into());
        properties.insert("error".to_owned(), error.into());
    }
    report
}

fn or_null(other: JsonObject) -> JsonObject {
    let either = vec![Value::Object(other), json!({"type": "null"})];
    Map::from_iter([("anyOf".to_owned(), either.into())])
}

/// A type's schema, in the words that every client knows: without references, names of dialects,
/// formats of our integers, and several types at once. `nullable` makes what may be null out of
/// what else it is.
fn schema<T: JsonSchema>(
    mut settings: SchemaSettings,
    nullable: fn(JsonObject) -> JsonObject,
) -> JsonObject {
    settings.meta_schema = None;
    settings.inline_subschemas = true;
    let settings = settings.with_transform(RecursiveTransform(move |schema: &mut Schema| {
        schema.remove("format");
        let Some(Value::Array(types)) = schema.get("type") else {
            return;
        };
        let Some(kind) = types.iter().find(|kind| *kind != "null").cloned() else {
            return;
        };
        let description = schema.remove("description");
        let mut other = mem::take(schema.ensure_object());
        other.insert("type".to_owned(), kind);
        let mut either = nullable(other);
        either.extend(description.map(|text| ("description".to_owned(), text)));
        *schema.ensure_object() = either;
    }));
    match settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
    {
        Value::Object(mut schema) => {
            // Those of the type, which are not meant for who calls the tool.
            schema.remove("title");
            schema.remove("description");
            schema
        }
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Tool; 3] {
        [
            push_changes::definition(),
            app_status::definition(),
            app_logs::definition(),
        ]
    }

    fn walk(value: &Value, visit: &mut impl FnMut(&str, &Value)) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    visit(key, value);
                    walk(value, visit);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
            _ => {}
        }
    }

    #[test]
    fn schemas_hold_nothing_that_a_client_stumbles_over() {
        for tool in all() {
            let output = tool.output_schema.unwrap();
            for schema in [&tool.input_schema, &output] {
                assert_eq!(schema["type"], "object");
                walk(&Value::Object((**schema).clone()), &mut |key, value| {
                    assert!(key != "type" || !value.is_array(), "{}", tool.name);
                    for absent in ["format", "$ref", "$defs", "$schema"] {
                        assert_ne!(key, absent, "{}: {schema:#?}", tool.name);
                    }
                });
            }
            assert_eq!(output["required"], json!(["error"]), "{}", tool.name);
        }
    }

    #[test]
    fn every_argument_is_described_and_of_one_type() {
        for tool in all() {
            let properties = tool.input_schema["properties"].as_object().unwrap();
            assert!(properties.contains_key("root"), "{}", tool.name);
            for (name, argument) in properties {
                assert!(argument["type"].is_string(), "{} {name}", tool.name);
                assert!(argument["description"].is_string(), "{} {name}", tool.name);
            }
            assert_eq!(tool.input_schema.get("required"), None);
            assert_eq!(tool.input_schema["additionalProperties"], false);
        }
    }

    #[test]
    fn every_field_of_a_result_is_described() {
        for tool in all() {
            let output = Value::Object((*tool.output_schema.unwrap()).clone());
            walk(&output, &mut |key, properties| {
                for (field, schema) in properties.as_object().into_iter().flatten() {
                    let described = key != "properties" || schema["description"].is_string();
                    assert!(described, "{}: {field}", tool.name);
                }
            });
        }
    }

    #[test]
    fn every_hint_is_given() {
        for tool in all() {
            let hints = tool.annotations.unwrap();
            assert!(tool.title.is_some());
            assert_eq!(hints.title, tool.title);
            for hint in [
                hints.read_only_hint,
                hints.destructive_hint,
                hints.idempotent_hint,
                hints.open_world_hint,
            ] {
                assert!(hint.is_some(), "{}", tool.name);
            }
        }
    }

    #[test]
    fn a_failure_fits_every_schema() {
        let failure = Failure::usage(anyhow!("no"));
        let outcome = Outcome::from(&failure);
        assert!(outcome.is_error);
        assert_eq!(
            Value::Object(outcome.structured),
            json!({"error": {"code": "usage", "message": "no"}})
        );
    }

    #[test]
    fn an_argument_that_is_none_is_named() {
        let parsed = |arguments: Value| {
            let Value::Object(arguments) = arguments else {
                panic!("no object");
            };
            parse::<push_changes::Arguments>(arguments).map_err(|failure| failure.message())
        };
        assert!(parsed(json!({})).is_ok());
        assert!(parsed(json!({"root": null, "force": null, "message": "m"})).is_ok());
        let error = parsed(json!({"message": "m", "force": "yes"})).unwrap_err();
        assert!(
            error.contains("“force”") && error.contains("boolean"),
            "{error}"
        );
        let error = parsed(json!({"rot": "/a"})).unwrap_err();
        assert!(
            error.contains("“rot”") && error.contains("`root`"),
            "{error}"
        );
    }
}
