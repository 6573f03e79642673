//! The kinds of objects that a manifest may hold.

use std::fmt;
use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::cluster::Cluster;
use super::decode::DecodeError;
use super::metallb::{self, IPAddressPool, L2Advertisement};
use super::policy::{self, ClusterNetworkPolicy};
use super::schema::nearest;
use super::tree;

/// An object of a manifest.
#[derive(Clone, PartialEq, Debug)]
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
    /// One address for several pods.
    Service(Box<Service>),
    /// Whom a Service leads to.
    EndpointSlice(Box<EndpointSlice>),
    /// Addresses for Services of the type LoadBalancer.
    IPAddressPool(Box<IPAddressPool>),
    /// Which nodes announce them.
    L2Advertisement(Box<L2Advertisement>),
    /// Who may talk to the pods of a namespace.
    NetworkPolicy(Box<NetworkPolicy>),
    /// Who may talk to whom.
    ClusterNetworkPolicy(Box<ClusterNetworkPolicy>),
}

/// Does the same with the object of whichever kind it is.
macro_rules! with {
    ($object:expr, $inner:ident => $what:expr) => {
        match $object {
            Object::Cluster($inner) => $what,
            Object::Namespace($inner) => $what,
            Object::Node($inner) => $what,
            Object::Pod($inner) => $what,
            Object::Deployment($inner) => $what,
            Object::Service($inner) => $what,
            Object::EndpointSlice($inner) => $what,
            Object::IPAddressPool($inner) => $what,
            Object::L2Advertisement($inner) => $what,
            Object::NetworkPolicy($inner) => $what,
            Object::ClusterNetworkPolicy($inner) => $what,
        }
    };
}

/// What tells an object from every other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    /// `Pod`.
    pub kind: &'static str,
    /// Empty for kinds that are in no namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object of this kind, if there is such a kind.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Option<Self> {
        let kind = KINDS.iter().find(|known| known.name == kind)?.name;
        Some(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        match (self.namespace.as_str(), self.name.as_str()) {
            (_, "") => Ok(()),
            ("", name) => write!(f, " {name}"),
            (namespace, name) => write!(f, " {namespace}/{name}"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

impl Object {
    /// Its kind, namespace and name.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        let everywhere = matches!(
            self,
            Self::Cluster(_) | Self::Namespace(_) | Self::Node(_) | Self::ClusterNetworkPolicy(_)
        );
        let namespaced = !everywhere;
        let namespace = metadata.namespace.clone().filter(|_| namespaced);
        let unset = if namespaced { "default" } else { "" };
        Key {
            kind: self.kind(),
            namespace: namespace.unwrap_or_else(|| unset.to_owned()),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// `Pod`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "Cluster",
            Self::Namespace(_) => "Namespace",
            Self::Node(_) => "Node",
            Self::Pod(_) => "Pod",
            Self::Deployment(_) => "Deployment",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::IPAddressPool(_) => "IPAddressPool",
            Self::L2Advertisement(_) => "L2Advertisement",
            Self::NetworkPolicy(_) => "NetworkPolicy",
            Self::ClusterNetworkPolicy(_) => "ClusterNetworkPolicy",
        }
    }

    /// As JSON, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// None that any object is known to cause.
    pub fn to_json(&self) -> Result<Json, serde_json::Error> {
        with!(self, object => serde_json::to_value(object))
    }

    /// Name, namespace, labels and annotations.
    pub fn metadata(&self) -> &ObjectMeta {
        with!(self, object => &object.metadata)
    }

    /// As one line of JSON, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// None that any object is known to cause.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        with!(self, object => serde_json::to_string(object))
    }
}

/// A pod's specification as JSON. Here, and not where it is asked for, because the types take long to compile.
pub fn pod_spec_json(spec: &PodSpec) -> Json {
    serde_json::to_value(spec).unwrap_or_default()
}

/// A kind: how it is written and read.
pub(super) struct Kind {
    pub(super) api_version: &'static str,
    pub(super) name: &'static str,
    pub(super) schema: &'static LazyLock<Json>,
    pub(super) decode: fn(&tree::Node) -> Result<Object, DecodeError>,
}

fn schema<T: JsonSchema>() -> Json {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

fn decode<T: DeserializeOwned>(node: &tree::Node, wrap: fn(Box<T>) -> Object) -> Result<Object, DecodeError> {
    T::deserialize(node).map(|object| wrap(Box::new(object)))
}

/// Every kind that has an effect.
pub(super) static KINDS: [Kind; 11] = [
    Kind {
        api_version: super::cluster::API_VERSION,
        name: "Cluster",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Cluster>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::Cluster),
    },
    Kind {
        api_version: "v1",
        name: "Namespace",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Namespace>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::Namespace),
    },
    Kind {
        api_version: "v1",
        name: "Node",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Node>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::Node),
    },
    Kind {
        api_version: "v1",
        name: "Pod",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Pod>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::Pod),
    },
    Kind {
        api_version: "apps/v1",
        name: "Deployment",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Deployment>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::Deployment),
    },
    Kind {
        api_version: "v1",
        name: "Service",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<Service>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::Service),
    },
    Kind {
        api_version: "discovery.k8s.io/v1",
        name: "EndpointSlice",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<EndpointSlice>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::EndpointSlice),
    },
    Kind {
        api_version: metallb::API_VERSION,
        name: "IPAddressPool",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<IPAddressPool>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::IPAddressPool),
    },
    Kind {
        api_version: metallb::API_VERSION,
        name: "L2Advertisement",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<L2Advertisement>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::L2Advertisement),
    },
    Kind {
        api_version: "networking.k8s.io/v1",
        name: "NetworkPolicy",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<NetworkPolicy>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::NetworkPolicy),
    },
    Kind {
        api_version: policy::API_VERSION,
        name: "ClusterNetworkPolicy",
        schema: {
            static SCHEMA: LazyLock<Json> = LazyLock::new(schema::<ClusterNetworkPolicy>);
            &SCHEMA
        },
        decode: |node| decode(node, Object::ClusterNetworkPolicy),
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
