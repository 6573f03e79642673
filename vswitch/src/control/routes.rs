//! The resources of the API: one table, from which both the router and the OpenAPI document are made.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};
use http_body_util::BodyExt as _;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::api::{
    ApplyRequest, ApplyView, CaptureFormat, ConnectionsView, DownView, DropView, EventView, FdbView, LogView,
    NeighborView, PlaceView, PortView, PublishRequest, PublishedView, RouteView, ScaleRequest, Status,
    TraceRequest, TraceView,
};
use super::names::NameView;
use super::objects::Listed;
use super::plane::Plane;
use super::policies::{MatrixView, PolicyView};
use super::server::{self, Shared, ask, problem};
use super::services::BalancedView;
use super::{metrics, openapi};
use crate::runtime::Runtime;

/// Octets of a request's body.
pub(super) const MAX_BODY: usize = 1 << 20;
/// The same of a request with manifests.
pub(super) const MAX_MANIFESTS: usize = 64 << 20;

/// Makes a type's schema.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One resource.
pub(super) struct Route {
    /// `get` or `post`.
    pub(super) method: &'static str,
    /// Its path, parts that vary in braces.
    pub(super) path: &'static str,
    /// What it is for.
    pub(super) summary: &'static str,
    /// What of the path and the query varies.
    pub(super) parameters: &'static [Parameter],
    /// What is sent.
    pub(super) request: Option<SchemaOf>,
    /// What is answered.
    pub(super) answer: Answer,
    /// Who answers.
    serve: fn() -> MethodRouter<Shared>,
}

/// A part of a path or of a query.
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: &'static str,
    /// What it means.
    pub(super) description: &'static str,
    /// Its type.
    pub(super) schema: SchemaOf,
    /// Whether it may be left out. Parts of a path may not.
    pub(super) optional: bool,
}

/// The body of an answer.
pub(super) enum Answer {
    /// JSON of this type.
    Json(SchemaOf),
    /// Text of this media type.
    Text(&'static str),
    /// Octets of this media type.
    Octets(&'static str),
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A resource that is only looked at.
const fn view<T: JsonSchema>(
    path: &'static str,
    summary: &'static str,
    serve: fn() -> MethodRouter<Shared>,
) -> Route {
    let answer = Answer::Json(schema::<T>);
    Route { method: "get", path, summary, parameters: &[], request: None, answer, serve }
}

/// A resource that something is sent to.
const fn verb<T: JsonSchema, A: JsonSchema>(
    path: &'static str,
    summary: &'static str,
    serve: fn() -> MethodRouter<Shared>,
) -> Route {
    let (request, answer) = (Some(schema::<T> as SchemaOf), Answer::Json(schema::<A>));
    Route { method: "post", path, summary, parameters: &[], request, answer, serve }
}

/// A part of a query that narrows an answer.
const fn filter(name: &'static str, description: &'static str, schema: SchemaOf) -> Parameter {
    Parameter { name, description, schema, optional: true }
}

/// All there is.
pub(super) const ROUTES: &[Route] = &[
    view::<Status>("/v1/status", "Who serves, and how", || get(server::status)),
    view::<Vec<PlaceView>>("/v1/places", "Everyone with an address, and how to enter it", || {
        get(|State(s): State<Shared>| ask(s, |r| Ok(r.places())))
    }),
    view::<Vec<PortView>>("/v1/ports", "Every port of every switch, with its counters", || {
        get(|State(s): State<Shared>| ask(s, Runtime::ports))
    }),
    view::<Vec<FdbView>>("/v1/fdb", "Every MAC address that a switch knows", || {
        get(|State(s): State<Shared>| ask(s, Runtime::fdb))
    }),
    view::<Vec<NeighborView>>("/v1/neighbors", "Every neighbour that a switch knows", || {
        get(|State(s): State<Shared>| ask(s, Runtime::neighbors))
    }),
    view::<Vec<RouteView>>("/v1/routes", "Every route of every switch", || {
        get(|State(s): State<Shared>| ask(s, Runtime::routes))
    }),
    view::<Vec<DropView>>("/v1/drops", "Every reason for which a port dropped frames", || {
        get(|State(s): State<Shared>| ask(s, Runtime::drops))
    }),
    Route {
        parameters: &[
            filter("node", "The node that tracks them", schema::<String>),
            filter("protocol", "`tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number", schema::<String>),
            filter(
                "source",
                "Address or prefix of who opened it, his own or as he is seen",
                schema::<String>,
            ),
            filter("destination", "Address or prefix that was asked for, or that it is", schema::<String>),
            filter("sport", "The port of who opened it, his own or as he is seen", schema::<u16>),
            filter("dport", "The port that was asked for, or that it is", schema::<u16>),
            filter("state", "The state of TCP or SCTP, `ASSURED` or `UNREPLIED`", schema::<String>),
        ],
        ..view::<ConnectionsView>("/v1/connections", "The connections that nodes track", || {
            get(server::connections)
        })
    },
    view::<Vec<String>>("/v1/check", "What of the switches' books does not balance: nothing", || {
        get(|State(s): State<Shared>| ask(s, Runtime::check))
    }),
    view::<Vec<EventView>>("/v1/events", "What happened lately", || {
        get(|State(s): State<Shared>| ask(s, |r| Ok(r.events())))
    }),
    Route {
        parameters: &[Parameter {
            name: "kind",
            description: "Which kind of objects",
            schema: kind_schema,
            optional: false,
        }],
        ..view::<Vec<Value>>("/v1/objects/{kind}", "All objects of a kind, as Kubernetes shows them", || {
            get(server::objects)
        })
    },
    view::<Vec<NameView>>("/v1/names", "What the cluster's names stand for", || get(server::names)),
    view::<Vec<PolicyView>>(
        "/v1/policies",
        "Every policy, whom it is about, and what it has stopped",
        || get(server::policies),
    ),
    Route {
        parameters: &[
            filter("namespace", "Only pods of this namespace", schema::<String>),
            filter("ports", "Ports that each is asked for, as `tcp/80,udp/53`", schema::<String>),
        ],
        ..view::<MatrixView>("/v1/policies/matrix", "Which pods can reach which, at which ports", || {
            get(server::matrix)
        })
    },
    Route {
        parameters: &[Parameter {
            name: "service",
            description: "NAMESPACE/NAME",
            schema: schema::<String>,
            optional: false,
        }],
        ..view::<Vec<BalancedView>>("/v1/balancing", "What nodes make of a Service", || {
            get(server::balancing)
        })
    },
    Route {
        parameters: &[Parameter {
            name: "pod",
            description: "POD or NAMESPACE/POD",
            schema: schema::<String>,
            optional: false,
        }],
        ..view::<Vec<LogView>>("/v1/logs", "Where the logs of a pod's containers are", || get(server::logs))
    },
    verb::<TraceRequest, TraceView>("/v1/trace", "Follow an imagined packet", || post(server::trace)),
    Route {
        parameters: &[
            Parameter {
                name: "port",
                description: "`any`, POD, node/NAME, host/NAME, or SWITCH:PORT",
                schema: schema::<String>,
                optional: false,
            },
            Parameter {
                name: "filter",
                description: "Which frames, in the language of pcap-filter(7); all if empty",
                schema: schema::<String>,
                optional: true,
            },
            Parameter {
                name: "format",
                description: "`pcapng`, or `text` for a line per frame",
                schema: schema::<CaptureFormat>,
                optional: true,
            },
            Parameter {
                name: "count",
                description: "End after so many frames that the filter matches",
                schema: schema::<u64>,
                optional: true,
            },
        ],
        answer: Answer::Octets(server::PCAPNG),
        ..view::<()>("/v1/capture", "Capture until the client leaves", || get(server::capture))
    },
    verb::<ApplyRequest, ApplyView>("/v1/apply", "Add and change objects", || {
        server::manifests(Plane::apply).layer(DefaultBodyLimit::max(MAX_MANIFESTS))
    }),
    verb::<ApplyRequest, ApplyView>("/v1/delete", "Remove objects, by their names", || {
        server::manifests(Plane::delete).layer(DefaultBodyLimit::max(MAX_MANIFESTS))
    }),
    verb::<ScaleRequest, ApplyView>("/v1/scale", "Give a Deployment another number of pods", || {
        post(server::scale)
    }),
    view::<Vec<PublishedView>>("/v1/published", "Ports of this machine that lead inside", || {
        get(server::published)
    }),
    verb::<PublishRequest, Vec<PublishedView>>("/v1/publish", "Have more of them, all or none", || {
        post(server::publish)
    }),
    verb::<PublishRequest, Vec<PublishedView>>("/v1/withdraw", "Have fewer", || post(server::withdraw)),
    Route { request: None, ..verb::<(), DownView>("/v1/down", "End the cluster", || post(server::down)) },
    Route {
        answer: Answer::Text(metrics::MEDIA_TYPE),
        ..view::<()>("/metrics", "Counters and sizes for Prometheus", || get(server::metrics))
    },
    view::<Value>("/v1/openapi.json", "This document", || get(|| async { Json(openapi::document(ROUTES)) })),
];

fn kind_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "string", "enum": Listed::NAMES.map(|(name, _)| name)})
}

/// The router of the table.
pub(super) fn router(shared: Shared) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.serve)()))
        .fallback(|| async {
            problem(StatusCode::NOT_FOUND, "no such resource; GET /v1/openapi.json lists them".to_owned())
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::map_response(as_error_body))
        .with_state(shared)
}

/// Gives errors that the framework answers in plain text the form of all others.
async fn as_error_body(response: Response) -> Response {
    let status = response.status();
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == "application/json");
    if json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let text = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).trim().to_owned();
    let reason = || status.canonical_reason().unwrap_or("refused").to_lowercase();
    let mut response = problem(status, if text.is_empty() { reason() } else { text }).into_response();
    response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_the_router_have_the_same_resources() {
        let document = openapi::document(ROUTES);
        let told: Vec<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
            })
            .collect();
        let mut routed: Vec<(String, String)> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_owned())).collect();
        routed.sort();
        assert_eq!(told, routed);
    }

    #[test]
    fn what_varies_in_a_path_is_a_parameter() {
        for route in ROUTES {
            for part in route.path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                assert!(route.parameters.iter().any(|p| p.name == name && !p.optional), "{}", route.path);
            }
        }
    }
}
