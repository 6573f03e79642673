//! What a change costs is what it changes. How many pods were looked at is held here; times are for a quiet machine and an
//! optimised build, and only printed:
//! `cargo test --release -p vswitch --test policies -- --ignored --nocapture costs`
#![allow(clippy::disallowed_methods, reason = "figures of real work take real time")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netstack::policy::{Action, Policies, Question};
use vswitch::policy::{
    Compiler, Namespaces, NodeFacts, PeerSpec, PodFacts, PodSelector, PolicySpec, PortSpec, RuleSpec,
    Selector, Tier,
};

const NODE: &str = "node-1";

fn address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0af4_0000 + pod)
}

fn name(pod: u32) -> Arc<str> {
    format!("n{}/p{pod}", pod % 100).into()
}

/// Pods are of a hundred namespaces and of as many apps as there are policies.
fn facts(pod: u32, apps: u32) -> PodFacts {
    let labels = [("app".to_owned(), format!("a{}", pod % apps)), ("pod".to_owned(), format!("p{pod}"))];
    PodFacts {
        namespace: format!("n{}", pod % 100),
        labels: labels.into(),
        addresses: vec![address(pod).into()],
        node: Some(NODE.into()),
        ports: vec![("serve".to_owned(), 6, 8080)],
    }
}

/// A policy of a namespace: one app is asked by another, and by the namespace at another port.
fn policy(number: u32, apps: u32) -> (Arc<str>, PolicySpec) {
    let namespace = format!("n{}", number % 100);
    let pods = |app: u32| Selector::of([("app", &*format!("a{}", app % apps))]);
    let here = |pods| PodSelector { namespaces: Namespaces::Named(namespace.clone()), pods };
    let everywhere = |pods| PodSelector { namespaces: Namespaces::Labelled(Selector::default()), pods };
    let rule = |selector, ports| RuleSpec {
        action: Action::Accept,
        peers: Some(vec![PeerSpec::Pods(selector)]),
        ports: Some(vec![ports]),
    };
    let range = PortSpec::Range { protocol: 6, first: 8000, last: 8100 };
    let spec = PolicySpec {
        namespace: Some(namespace.clone()),
        name: format!("policy-{number}"),
        tier: Tier::Policy,
        priority: 0,
        subject: here(pods(number)),
        ingress: Some(vec![
            rule(everywhere(pods(number + 1)), range),
            rule(here(Selector::default()), PortSpec::Named { protocol: 6, name: "serve".to_owned() }),
        ]),
        egress: None,
    };
    (spec.title().into(), spec)
}

/// With policies each of which is about an app, or about everybody.
fn filled(policies: u32, pods: u32, everybody: bool) -> Compiler {
    let mut compiler = Compiler::default();
    let node = NodeFacts { addresses: vec![[192, 168, 10, 2].into()], ..NodeFacts::default() };
    compiler.set_node(&NODE.into(), Some(node));
    for pod in 0..pods {
        compiler.set_pod(&name(pod), Some(facts(pod, policies.max(1))));
    }
    for number in 0..policies {
        let (title, mut spec) = policy(number, policies);
        if everybody {
            let namespaces = Namespaces::Labelled(Selector::default());
            spec.subject = PodSelector { namespaces, pods: Selector::default() };
        }
        compiler.set_policy(&title, Some(Arc::new(spec)));
    }
    compiler
}

fn compiled(policies: u32, pods: u32) -> Compiler {
    let mut compiler = filled(policies, pods, false);
    compiler.publish();
    compiler
}

fn may_ask(policies: &Policies, from: u32, to: u32, port: u16) -> bool {
    let question =
        Question { source: address(from).into(), destination: address(to).into(), protocol: 6, port };
    policies.judge(&question).is_allowed()
}

#[test]
fn a_pod_that_comes_is_all_that_is_looked_at() {
    for (policies, pods) in [(10, 50), (1000, 500), (2000, 4000)] {
        let mut compiler = compiled(policies, pods);
        for pod in [pods, pods + 1, 7] {
            let before = compiler.looked();
            compiler.set_pod(
                &name(pod),
                Some(PodFacts { node: Some(NODE.into()), ..facts(pod + 100, policies) }),
            );
            assert_eq!(compiler.publish().len(), 1);
            assert_eq!(compiler.looked() - before, 1, "{policies} policies, {pods} pods");
        }
        let before = compiler.looked();
        compiler.set_pod(&name(3), None);
        compiler.publish();
        // Nobody is left to be looked at.
        assert_eq!(compiler.looked(), before);
        assert!(compiler.publish().is_empty());
    }
}

#[test]
fn a_policy_costs_the_pods_that_it_is_about_and_names_first() {
    let mut compiler = compiled(1000, 2000);
    let (title, spec) = policy(5, 1000);
    let before = compiler.looked();
    let rules = spec.ingress.clone().map(|rules| rules[..1].to_vec());
    compiler.set_policy(&title, Some(Arc::new(PolicySpec { ingress: rules, ..spec })));
    let changed = compiler.publish();
    assert_eq!(changed.len(), 1);
    // 2 of 2000 pods are of the app, and as many in the namespace.
    assert!((1..=30).contains(&(compiler.looked() - before)), "{}", compiler.looked() - before);
}

/// The first tier's answer and that of the last must not depend on how many policies there are: what is looked up is held by
/// the budgets in instructions; here, that the answers are right among thousands.
#[test]
fn answers_are_right_among_thousands() {
    let mut compiler = compiled(2000, 4000);
    compiler.set_pod(&name(9000), Some(PodFacts { labels: [].into(), ..facts(9000, 2000) }));
    let published = compiler.publish();
    let policies = published[0].1.as_ref().unwrap();
    let ask = |from, to, port| may_ask(policies, from, to, port);
    for app in [0, 1, 500, 1998] {
        // Whose app is the next one may ask, wherever he is; who is of the namespace, at the port of that name.
        assert!(ask(app + 1, app, 8050) && !ask(app + 1, app, 9000));
        assert!(!ask(app + 2, app, 8050));
        assert!(ask(app + 100, app, 8080) && !ask(app + 100, app, 8081));
    }
    assert!(ask(1, 9000, 1), "nothing is about it");
}

#[test]
fn policies_that_are_all_about_everybody_are_compiled_once() {
    let mut compiler = filled(500, 1000, true);
    let published = compiler.publish();
    assert_eq!(compiler.looked(), 1000);
    let policies = published[0].1.as_ref().unwrap();
    assert!(may_ask(policies, 2, 700, 8050) && !may_ask(policies, 2, 700, 9000));
    let subject = |pod: u32| policies.subject(address(pod).into()).unwrap();
    assert!(Arc::ptr_eq(subject(2), subject(700)));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

#[test]
#[ignore = "takes time, and its figures need a quiet machine"]
fn figures() {
    for (policies, pods) in [(0, 5000), (100, 5000), (1000, 5000), (10_000, 5000)] {
        let (mut compiler, all) = timed(|| compiled(policies, pods));
        let mut times: Vec<Duration> = (0..101)
            .map(|at| {
                let facts = facts(pods + at, policies.max(1));
                timed(|| {
                    compiler.set_pod(&name(pods + at), Some(facts));
                    compiler.publish()
                })
                .1
            })
            .collect();
        times.sort_unstable();
        println!(
            "{policies} policies, {pods} pods: compiled in {all:?}, one pod more in {:?} (median)",
            times[50]
        );
    }
    let ((), all) = timed(|| drop(filled(10_000, 5000, true).publish()));
    println!("10000 policies, each about all of 5000 pods: compiled in {all:?}");
}
