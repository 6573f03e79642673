//! The kinds of objects that a manifest may hold.

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::cluster::Cluster;
use super::schema::nearest;

/// An object of a manifest.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Object {
    /// What Kubernetes leaves to its installer.
    Cluster(Box<Cluster>),
    /// A namespace.
    Namespace(Box<Namespace>),
    /// A node.
    Node(Box<Node>),
    /// A pod.
    Pod(Box<Pod>),
    /// Pods by number.
    Deployment(Box<Deployment>),
}

impl Object {
    /// Name, namespace, labels and annotations.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Cluster(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Deployment(object) => &object.metadata,
        }
    }
}

/// A kind: how it is written and read.
pub(super) struct Kind {
    pub(super) api_version: &'static str,
    pub(super) name: &'static str,
    /// Whether its objects are in a namespace.
    pub(super) namespaced: bool,
    pub(super) schema: &'static LazyLock<Json>,
    pub(super) decode: fn(Json) -> Result<Object, serde_json::Error>,
}

fn schema<T: JsonSchema>() -> Json {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

fn decode<T: DeserializeOwned>(json: Json, wrap: fn(Box<T>) -> Object) -> Result<Object, serde_json::Error> {
    serde_json::from_value(json).map(|object| wrap(Box::new(object)))
}

/// Every kind that has an effect.
pub(super) static KINDS: [Kind; 5] = [
    Kind {
        api_version: super::cluster::API_VERSION,
        name: "Cluster",
        namespaced: false,
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Cluster>);
            &SCHEMA
        },
        decode: |json| decode(json, Object::Cluster),
    },
    Kind {
        api_version: "v1",
        name: "Namespace",
        namespaced: false,
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Namespace>);
            &SCHEMA
        },
        decode: |json| decode(json, Object::Namespace),
    },
    Kind {
        api_version: "v1",
        name: "Node",
        namespaced: false,
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Node>);
            &SCHEMA
        },
        decode: |json| decode(json, Object::Node),
    },
    Kind {
        api_version: "v1",
        name: "Pod",
        namespaced: true,
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Pod>);
            &SCHEMA
        },
        decode: |json| decode(json, Object::Pod),
    },
    Kind {
        api_version: "apps/v1",
        name: "Deployment",
        namespaced: true,
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Deployment>);
            &SCHEMA
        },
        decode: |json| decode(json, Object::Deployment),
    },
];

/// Kinds of Kubernetes that are read past with a warning: people have them in the same files.
const WITHOUT_EFFECT: &[&str] = &[
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "EndpointSlice",
    "Endpoints",
    "Event",
    "Gateway",
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Job",
    "Lease",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "NetworkPolicy",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodTemplate",
    "PriorityClass",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
    "StorageClass",
    "ValidatingWebhookConfiguration",
];

/// What to do with an object of this kind.
pub(super) enum Known {
    Kind(&'static Kind),
    /// It exists in Kubernetes, and has no effect here.
    WithoutEffect,
    /// It does not exist; why, in a sentence.
    Unknown(String),
}

/// Looks a kind up.
pub(super) fn find(api_version: &str, name: &str) -> Known {
    if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
        if kind.api_version == api_version {
            return Known::Kind(kind);
        }
        return Known::Unknown(format!("{name} is of apiVersion {}, not {api_version:?}", kind.api_version));
    }
    if WITHOUT_EFFECT.contains(&name) {
        return Known::WithoutEffect;
    }
    let names = KINDS.iter().map(|kind| kind.name).chain(WITHOUT_EFFECT.iter().copied());
    let hint = nearest(name, names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Known::Unknown(format!("there is no kind {name:?}{hint}"))
}
