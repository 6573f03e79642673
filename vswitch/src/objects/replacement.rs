//! How the pods of a Deployment are replaced.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use manifest::Located;

use super::compile::Compiler;
use crate::cluster::Replacement;

/// Kubernetes' default of `progressDeadlineSeconds`.
const DEADLINE: i32 = 600;

impl Compiler<'_> {
    pub(super) fn replacement(&mut self, at: &Located, deployment: &Deployment) -> Arc<Replacement> {
        let key = at.object.key();
        let spec = &deployment.spec;
        let strategy = spec.strategy.as_ref();
        let kind = strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate");
        if !["RollingUpdate", "Recreate"].contains(&kind) {
            let message = format!("{kind:?} is neither RollingUpdate nor Recreate");
            self.fault(at, "spec.strategy.type", message);
        }
        let wanted = strategy.and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref());
        let most = wanted.map_or(Some(1), |wanted| number(wanted, spec.replicas.unwrap_or(1)));
        if most.is_none() {
            let message = "a number of pods is needed, or a share of them such as 25%";
            self.fault(at, "spec.strategy.rollingUpdate.maxUnavailable", message);
        }
        let deadline = spec.progress_deadline_seconds.unwrap_or(DEADLINE);
        let deadline = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
        let all = kind == "Recreate";
        // Pods have their names by their number, so that one has to go before its successor comes.
        let max_unavailable = if all { None } else { most.map(|most| most.max(1)) };
        Arc::new(Replacement {
            deployment: format!("{}/{}", key.namespace, key.name),
            max_unavailable,
            deadline,
        })
    }
}

/// A share is rounded down.
fn number(value: &IntOrString, replicas: i32) -> Option<usize> {
    let number = match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => {
            let percent: u8 = text.strip_suffix('%')?.parse().ok()?;
            i64::from(replicas) * i64::from(percent) / 100
        }
    };
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down() {
        let text = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(number(&IntOrString::Int(3), 10), Some(3));
        assert_eq!(number(&text("25%"), 7), Some(1));
        assert_eq!(number(&text("25%"), 3), Some(0));
        for bad in [text("3"), text("%"), text("-1%"), text("x%"), IntOrString::Int(-1)] {
            assert_eq!(number(&bad, 10), None, "{bad:?}");
        }
    }
}
