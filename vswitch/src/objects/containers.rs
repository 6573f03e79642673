//! From a pod's specification to what is run in it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::container::{Check, Container, Images, PodSpec, PreStop, Probe, Probes, RestartPolicy, image};

/// Faults in a pod's specification: field and sentence.
pub(super) type Faults = Vec<(String, String)>;

/// What is run in the pod whose network namespace has the name `netns`.
pub(super) fn workload(
    netns: String,
    log_prefix: String,
    addresses: &[IpAddr],
    spec: &k8s::PodSpec,
    images: &Images,
    faults: &mut Faults,
) -> PodSpec {
    let mut pod = PodSpec::new(netns);
    pod.log_prefix = log_prefix;
    pod.address = addresses.first().copied();
    pod.restart_policy = match spec.restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    };
    if let Some(seconds) = spec.termination_grace_period_seconds {
        pod.termination_grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    }
    let mut of = Of { spec, images, faults };
    let lists = [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", &spec.containers),
    ];
    let [init_containers, containers] = lists.map(|(field, containers)| {
        let paths = (0..).map(|index: usize| format!("spec.{field}[{index}]"));
        containers.iter().zip(paths).map(|(container, path)| of.container(container, &path)).collect()
    });
    pod.init_containers = init_containers;
    pod.containers = containers;
    pod
}

struct Of<'a> {
    spec: &'a k8s::PodSpec,
    images: &'a Images,
    faults: &'a mut Faults,
}

impl Of<'_> {
    fn container(&mut self, container: &k8s::Container, path: &str) -> Container {
        let image = container.image.clone().unwrap_or_default();
        let command = container.command.as_deref().unwrap_or_default();
        let program =
            image::resolve(&image, command, container.args.as_deref().unwrap_or_default(), self.images);
        let mut made = Container::new(&container.name, image, program);
        for variable in container.env.iter().flatten() {
            let value = [variable.value.clone().unwrap_or_default()];
            made.env.push((variable.name.clone(), image::expand(&value, &made.env).concat()));
        }
        made.working_dir = container.working_dir.as_ref().map(PathBuf::from);
        made.user = self.user(container, path);
        made.no_new_privs = container
            .security_context
            .as_ref()
            .is_some_and(|context| context.allow_privilege_escalation == Some(false));
        made.pre_stop = self.pre_stop(container, path);
        let mut probe = |field: &str, probe: &Option<k8s::Probe>| {
            probe.as_ref().and_then(|probe| self.probe(container, probe, &format!("{path}.{field}")))
        };
        made.probes = Probes {
            startup: probe("startupProbe", &container.startup_probe),
            readiness: probe("readinessProbe", &container.readiness_probe),
            liveness: probe("livenessProbe", &container.liveness_probe),
        };
        made
    }

    /// The container's own user and group, else the pod's. A user without a group is in the group of its number.
    fn user(&mut self, container: &k8s::Container, path: &str) -> Option<(u32, u32)> {
        let own = container.security_context.as_ref();
        let pod = self.spec.security_context.as_ref();
        let user = own.and_then(|c| c.run_as_user).or_else(|| pod.and_then(|c| c.run_as_user));
        let group = own.and_then(|c| c.run_as_group).or_else(|| pod.and_then(|c| c.run_as_group));
        if user.is_none() && group.is_none() {
            return None;
        }
        let user = user.unwrap_or(0);
        let number = |value: i64| u32::try_from(value).ok().filter(|n| *n < u32::MAX);
        let pair = number(user).zip(number(group.unwrap_or(user)));
        if pair.is_none() {
            self.faults.push((
                format!("{path}.securityContext"),
                "user and group are numbers from 0 to 4294967294".into(),
            ));
        }
        pair
    }

    fn probe(&mut self, container: &k8s::Container, probe: &k8s::Probe, path: &str) -> Option<Probe> {
        let check = if let Some(exec) = &probe.exec {
            Check::Exec(exec.command.clone().unwrap_or_default())
        } else if let Some(http) = &probe.http_get {
            self.http(container, http, path)?
        } else if let Some(grpc) = &probe.grpc {
            let port = self.port(container, &IntOrString::Int(grpc.port), &format!("{path}.grpc.port"))?;
            Check::Grpc { port, service: grpc.service.clone().unwrap_or_default() }
        } else if let Some(tcp) = &probe.tcp_socket {
            let port = self.port(container, &tcp.port, &format!("{path}.tcpSocket.port"))?;
            Check::TcpSocket { host: tcp.host.clone(), port }
        } else {
            self.faults.push((path.to_owned(), "one of exec, grpc, httpGet and tcpSocket is needed".into()));
            return None;
        };
        let mut made = Probe::new(check);
        let seconds = |value: Option<i32>, default: Duration| {
            value.map_or(default, |value| Duration::from_secs(u64::try_from(value).unwrap_or(0)))
        };
        let count =
            |value: Option<i32>, default: u32| value.map_or(default, |v| u32::try_from(v).unwrap_or(0));
        made.initial_delay = seconds(probe.initial_delay_seconds, made.initial_delay);
        made.period = seconds(probe.period_seconds, made.period);
        made.timeout = seconds(probe.timeout_seconds, made.timeout);
        made.success_threshold = count(probe.success_threshold, made.success_threshold);
        made.failure_threshold = count(probe.failure_threshold, made.failure_threshold);
        made.termination_grace = probe
            .termination_grace_period_seconds
            .map(|value| Duration::from_secs(u64::try_from(value).unwrap_or(0)));
        Some(made)
    }

    fn http(&mut self, container: &k8s::Container, http: &k8s::HTTPGetAction, path: &str) -> Option<Check> {
        if http.scheme.as_deref() == Some("HTTPS") {
            self.faults.push((format!("{path}.httpGet.scheme"), "HTTPS is not supported here".into()));
        }
        let headers = http.http_headers.iter().flatten();
        Some(Check::HttpGet {
            host: http.host.clone(),
            port: self.port(container, &http.port, &format!("{path}.httpGet.port"))?,
            path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn pre_stop(&mut self, container: &k8s::Container, path: &str) -> Option<PreStop> {
        let hook = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
        let path = format!("{path}.lifecycle.preStop");
        if let Some(sleep) = &hook.sleep {
            return Some(PreStop::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
        }
        if let Some(exec) = &hook.exec {
            return Some(PreStop::Ask(Check::Exec(exec.command.clone().unwrap_or_default())));
        }
        let Some(http) = &hook.http_get else {
            self.faults.push((path, "one of exec, httpGet and sleep is needed".into()));
            return None;
        };
        self.http(container, http, &path).map(PreStop::Ask)
    }

    /// A port by number, or by the name that the container gives it.
    fn port(&mut self, container: &k8s::Container, port: &IntOrString, path: &str) -> Option<u16> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let ports = container.ports.iter().flatten();
                ports.into_iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port)
            }
        };
        let found = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        if found.is_none() {
            let message = match port {
                IntOrString::Int(number) => format!("{number} is not between 1 and 65535"),
                IntOrString::String(name) => format!("no port of the container has the name {name:?}"),
            };
            self.faults.push((path.to_owned(), message));
        }
        found
    }
}
