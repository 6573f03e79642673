//! What the controller makes of facts.

use super::*;

fn node(name: &str, last: u8, zone: &str) -> NodeFacts {
    NodeFacts {
        name: name.into(),
        zone: (!zone.is_empty()).then(|| zone.into()),
        labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        addresses: vec![IpAddr::from([192, 168, 10, last]), ip(&format!("fd00:192:168:10::{last:x}"))],
        gateways: vec![IpAddr::from([10, 244, last, 1]), ip(&format!("fd00:10:244:{last:x}::1"))],
        prefixes: vec!["192.168.10.0/24".parse().unwrap(), "fd00:192:168:10::/64".parse().unwrap()],
    }
}

fn pod(node: &str, last: u8, app: &str) -> PodFacts {
    PodFacts {
        hostname: None,
        namespace: "default".into(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned()), ("x".to_owned(), "y".to_owned())]),
        addresses: vec![IpAddr::from([10, 244, 0, last]), ip(&format!("fd00:10:244::{last:x}"))],
        node: node.into(),
        ports: vec![PodPort {
            name: "web".into(),
            protocol: crate::cluster::Protocol::Tcp,
            port: 8000 + u16::from(last),
        }],
        weight: 1,
        ready: true,
        terminating: false,
        ended: false,
    }
}

fn controller() -> Controller {
    let mut controller = Controller::new([7; 16]);
    controller.set_nodes(vec![node("a", 2, "x"), node("b", 3, "y")]);
    controller
}

/// Tells a controller what a change of a world's objects changes.
fn tell(controller: &mut Controller, planning: &Planning) {
    let Plan { frame, pools, advertisements, .. } = &planning.plan;
    controller.set_frame(frame.masquerade_all, Arc::clone(pools), Arc::clone(advertisements));
    for (name, slice) in &planning.slices {
        controller.set_slice(name, slice.clone());
    }
    for (name, planned) in &planning.services {
        controller.set_service(name, planned.clone());
    }
}

fn applied(controller: &mut Controller, world: World, text: &str) -> World {
    let mut world = world;
    let keys = world.keys(text);
    let (world, planning) = world.change(Some(&keys)).unwrap_or_else(|invalid| panic!("{invalid}"));
    tell(controller, &planning);
    world
}

fn registry<'a>(controller: &'a Controller, node: &str) -> &'a Registry {
    controller.registries().find(|(name, _)| &***name == node).unwrap().1
}

/// The backends that clients of an origin get at `ADDRESS:PORT` of TCP on a node; none if nothing is there.
fn reached(controller: &Controller, node: &str, origin: Origin, frontend: &str) -> Option<Vec<String>> {
    let at: std::net::SocketAddr = frontend.parse().unwrap();
    let (_, entrance) =
        registry(controller, node).find(&Frontend { address: at.ip(), protocol: 6, port: at.port() })?;
    let backends = entrance.way(origin).pool.backends().iter();
    Some(backends.map(|b| std::net::SocketAddr::new(b.address, b.port).to_string()).collect())
}

fn inside(controller: &Controller, frontend: &str) -> Vec<String> {
    reached(controller, "a", Origin::Inside, frontend).unwrap()
}

const SLICE: &str = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: NAME, labels: \
                     {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{name: web, port: 9000}]\nendpoints: ";

fn slice(name: &str, endpoints: &str) -> String {
    format!("{}{endpoints}\n", SLICE.replace("NAME", name))
}

#[test]
fn endpoints_are_pods_by_label_with_their_own_ports_in_both_families() {
    let mut controller = controller();
    for (name, facts) in [("p1", pod("a", 1, "s")), ("p2", pod("b", 2, "s")), ("q", pod("b", 3, "t"))] {
        controller.set_pod(&format!("default/{name}").into(), Some(facts));
    }
    let mut other = pod("a", 9, "s");
    other.namespace = "shop".into();
    controller.set_pod(&"shop/p9".into(), Some(other));
    let ports =
        "[{name: n, port: 80, targetPort: web}, {name: m, port: 81, targetPort: 7000}, {name: l, port: 82}]";
    let spec = format!("clusterIPs: [10.96.1.1, 'fd00:10:96::11'], selector: {{app: s}}, ports: {ports}");
    applied(&mut controller, World::new(&cluster("")), &service("s", &spec));
    let changed: Vec<String> = controller.publish().iter().map(|(node, _)| node.to_string()).collect();
    assert_eq!(changed, ["a", "b"]);
    assert_eq!(inside(&controller, "10.96.1.1:80"), ["10.244.0.1:8001", "10.244.0.2:8002"]);
    assert_eq!(inside(&controller, "10.96.1.1:81"), ["10.244.0.1:7000", "10.244.0.2:7000"]);
    assert_eq!(inside(&controller, "10.96.1.1:82"), ["10.244.0.1:82", "10.244.0.2:82"]);
    assert_eq!(
        inside(&controller, "[fd00:10:96::11]:80"),
        ["[fd00:10:244::1]:8001", "[fd00:10:244::2]:8002"]
    );
    // A name that a pod does not have leaves it out.
    let mut nameless = pod("a", 1, "s");
    nameless.ports.clear();
    controller.set_pod(&"default/p1".into(), Some(nameless));
    controller.publish();
    assert_eq!(inside(&controller, "10.96.1.1:80"), ["10.244.0.2:8002"]);
    // The same is made once for both nodes.
    let pools = ["a", "b"].map(|node| {
        let frontend = Frontend { address: ip("10.96.1.1"), protocol: 6, port: 81 };
        Arc::clone(&registry(&controller, node).find(&frontend).unwrap().1.ways[0].pool)
    });
    assert!(Arc::ptr_eq(&pools[0], &pools[1]));
}

#[test]
fn readiness_and_ends_reach_the_registries() {
    let mut controller = controller();
    let world = World::new(&cluster(""));
    let name: Arc<str> = "default/p".into();
    let spec = "clusterIP: 10.96.1.1, selector: {app: s}";
    let world = applied(&mut controller, world, &service("s", spec));
    let text = service("t", "clusterIP: 10.96.1.2, selector: {app: s}, publishNotReadyAddresses: true");
    applied(&mut controller, world, &text);
    let facts = pod("a", 1, "s");
    let cases = [
        (PodFacts { ready: false, ..facts.clone() }, 0, 1),
        (facts.clone(), 1, 1),
        (PodFacts { terminating: true, ..facts.clone() }, 1, 1),
        (PodFacts { terminating: true, ready: false, ..facts.clone() }, 0, 1),
        (PodFacts { ended: true, ready: false, ..facts.clone() }, 0, 0),
    ];
    for (facts, ready, all) in cases {
        controller.set_pod(&name, Some(facts.clone()));
        controller.publish();
        let counts = ["10.96.1.1:80", "10.96.1.2:80"].map(|frontend| inside(&controller, frontend).len());
        assert_eq!(counts, [ready, all], "{facts:?}");
        controller.set_pod(&name, Some(facts));
        assert_eq!(controller.publish(), [], "nothing has changed");
    }
    // Somebody who is ready goes before one who is about to go, and that one keeps what he has.
    controller.set_pod(&name, Some(PodFacts { terminating: true, ..facts }));
    controller.set_pod(&"default/p2".into(), Some(pod("b", 2, "s")));
    controller.publish();
    assert_eq!(inside(&controller, "10.96.1.1:80"), ["10.244.0.2:80"]);
    let frontend = Frontend { address: ip("10.96.1.1"), protocol: 6, port: 80 };
    let serving = &registry(&controller, "a").find(&frontend).unwrap().0.serving;
    assert!(serving.contains((ip("10.244.0.1"), 80)));
    controller.set_pod(&name, None);
    controller.publish();
    let serving = &registry(&controller, "a").find(&frontend).unwrap().0.serving;
    assert!(!serving.contains((ip("10.244.0.1"), 80)));
}

#[test]
fn slices_are_taken_as_they_are() {
    let mut controller = controller();
    let spec = "clusterIP: 10.96.1.1, ports: [{name: web, port: 80, targetPort: 1}]";
    let world = applied(&mut controller, World::new(&cluster("")), &service("s", spec));
    let one = "[{addresses: [10.1.1.1, 10.1.1.9]}, {addresses: [10.1.1.2], conditions: {ready: false}}, \
               {addresses: [10.1.1.3], conditions: {ready: false, serving: true, terminating: true}}]";
    let world = applied(&mut controller, world, &slice("one", one));
    controller.publish();
    assert_eq!(inside(&controller, "10.96.1.1:80"), ["10.1.1.1:9000"]);
    // Two slices, one address in both, and once it is ready.
    let world =
        applied(&mut controller, world, &slice("two", "[{addresses: [10.1.1.2]}, {addresses: [10.1.1.1]}]"));
    controller.publish();
    assert_eq!(inside(&controller, "10.96.1.1:80"), ["10.1.1.1:9000", "10.1.1.2:9000"]);
    let world = applied(&mut controller, world, &slice("two", "[]").replace("name: web", "name: other"));
    let heavy = slice("one", "[{addresses: [10.1.1.7]}]")
        .replace("{name: one,", "{name: one, annotations: {vswitch/weight: '3'},");
    applied(&mut controller, world.clone(), &heavy);
    controller.publish();
    let frontend = Frontend { address: ip("10.96.1.1"), protocol: 6, port: 80 };
    let pool = &registry(&controller, "a").find(&frontend).unwrap().1.ways[0].pool;
    assert_eq!(
        pool.backends().iter().map(|b| (b.address, b.weight)).collect::<Vec<_>>(),
        [(ip("10.1.1.7"), 3)]
    );
    for (endpoints, why) in [
        ("[{addresses: [x]}]", "endpoints[0].addresses[0]: \"x\" is no address"),
        ("[{addresses: ['fd00::1']}]", "endpoints[0].addresses[0]: fd00::1 is no IPv4 address"),
        ("[{addresses: []}]", "endpoints[0].addresses: one address is needed"),
    ] {
        let told = world.faults(&slice("bad", endpoints));
        assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
    }
}

#[test]
fn doors_lead_where_policies_say_on_each_node() {
    let mut controller = controller();
    controller.set_pod(&"default/p".into(), Some(pod("a", 1, "s")));
    let text = [
        pool("pool", "addresses: [192.168.10.100/32]"),
        service(
            "s",
            "clusterIP: 10.96.1.1, type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: s}, externalIPs: \
             [203.0.113.1], ports: [{port: 80, nodePort: 30080}]",
        ),
    ];
    applied(&mut controller, World::new(&cluster("")), &text.concat());
    controller.publish();
    let pod = "10.244.0.1:80".to_owned();
    for door in ["203.0.113.1:80", "192.168.10.100:80"] {
        for origin in [Origin::Inside, Origin::Node] {
            assert_eq!(reached(&controller, "b", origin, door), Some(vec![pod.clone()]), "{door} {origin:?}");
        }
        assert_eq!(reached(&controller, "b", Origin::Outside, door), Some(vec![]), "{door}");
        assert_eq!(reached(&controller, "a", Origin::Outside, door), Some(vec![pod.clone()]), "{door}");
    }
    assert_eq!(reached(&controller, "a", Origin::Outside, "192.168.10.2:30080"), Some(vec![pod]));
    assert_eq!(reached(&controller, "a", Origin::Outside, "192.168.10.3:30080"), None, "the other node's");
    assert_eq!(reached(&controller, "b", Origin::Outside, "192.168.10.3:30080"), Some(vec![]));
}

#[test]
fn maglev_is_the_same_on_every_node() {
    let mut controller = controller();
    for last in 1..=7 {
        controller.set_pod(&format!("default/p{last}").into(), Some(pod("a", last, "s")));
    }
    let spec =
        "clusterIP: 10.96.1.1, type: NodePort, selector: {app: s}, ports: [{port: 80, nodePort: 30080}]";
    applied(&mut controller, World::new(&cluster("")), &service("s", spec));
    controller.publish();
    let pool = |node: &str, address: &str, port| {
        let frontend = Frontend { address: ip(address), protocol: 6, port };
        Arc::clone(&registry(&controller, node).find(&frontend).unwrap().1.ways[0].pool)
    };
    let one = pool("a", "10.96.1.1", 80);
    // As many as there are hundreds of backends, and a prime.
    assert_eq!(one.table_size(), Some(1021));
    for other in [pool("b", "10.96.1.1", 80), pool("b", "192.168.10.3", 30_080)] {
        assert!((0..10_000u64).all(|n| one.select(n << 40, 0) == other.select(n << 40, 0)));
        assert_eq!(one.table_size(), other.table_size());
    }
    // And with the next start.
    let key = || World::new(&cluster("")).cluster.balancing_key();
    assert_eq!(key(), key());
}

#[test]
fn source_ranges_hold_at_load_balancer_addresses_alone_and_never_for_the_node() {
    let mut controller = controller();
    let text = [
        pool("pool", "addresses: [192.168.10.100/32]"),
        service(
            "s",
            "clusterIP: 10.96.1.1, type: LoadBalancer, selector: {app: s}, externalIPs: [203.0.113.1], \
             loadBalancerSourceRanges: [198.51.100.0/24], ports: [{port: 80, nodePort: 30080}]",
        ),
    ];
    applied(&mut controller, World::new(&cluster("")), &text.concat());
    controller.publish();
    let entrance = |door: &str| {
        let at: std::net::SocketAddr = door.parse().unwrap();
        let frontend = Frontend { address: at.ip(), protocol: 6, port: at.port() };
        registry(&controller, "a").find(&frontend).unwrap().1.clone()
    };
    let balancer = entrance("192.168.10.100:80");
    assert!(balancer.admits(ip("198.51.100.7"), Origin::Outside));
    assert!(!balancer.admits(ip("10.244.0.1"), Origin::Inside));
    assert!(balancer.admits(ip("192.168.10.2"), Origin::Node));
    for door in ["192.168.10.2:30080", "203.0.113.1:80", "10.96.1.1:80"] {
        assert!(entrance(door).admits(ip("192.0.2.1"), Origin::Outside), "{door}");
    }
}

#[test]
fn agents_are_told_of_services_that_changed_and_relay_to_their_own_switch() {
    let mut controller = controller();
    let spec = "clusterIP: 10.96.1.1, type: LoadBalancer, externalTrafficPolicy: Local, internalTrafficPolicy: Local, \
                selector: {app: s}, ports: [{port: 80, nodePort: 30080}]";
    let texts = [service("s", spec), service("inside", "selector: {app: s}"), service("t", "type: NodePort")];
    let world = applied(&mut controller, World::new(&cluster("")), &texts.concat());
    let told = |controller: &mut Controller| {
        controller.publish();
        duties(controller)
    };
    let names = |told: &BTreeMap<Arc<str>, Vec<(Arc<str>, crate::agent::NodeDuties)>>| {
        told.values().map(|of| of.iter().map(|(name, _)| name.to_string()).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(names(&told(&mut controller)), [["default/s", "default/t"]; 2]);
    assert_eq!(names(&told(&mut controller)), [[""; 0]; 0]);
    controller.set_pod(&"default/p".into(), Some(pod("a", 1, "s")));
    let told_of_pod = told(&mut controller);
    assert_eq!(names(&told_of_pod), [["default/s"]; 2]);
    let of = |node: &str| &told_of_pod[node][0].1;
    assert_eq!(["a", "b"].map(|node| of(node).health_checks[0].local_endpoints), [1, 0]);
    let relay = &of("b").relays[0];
    assert_eq!(relay.listen, [ip("127.0.0.1"), ip("192.168.10.3")]);
    assert_eq!((relay.port, &relay.to[..]), (30080, &["10.244.3.1:30080".parse().unwrap()][..]));
    // There a node gets a pod wherever it is, whatever the policies say to others.
    let there = |origin| reached(&controller, "b", origin, "10.244.3.1:30080");
    assert_eq!(there(Origin::Node), Some(vec!["10.244.0.1:80".to_owned()]));
    assert_eq!(there(Origin::Outside), Some(vec![]));
    assert_eq!(reached(&controller, "b", Origin::Node, "10.96.1.1:80"), Some(vec![]));
    // Who is gone, or is no more to be asked there, has nothing to be done for.
    let world = applied(&mut controller, world, &service("t", ""));
    let told_of_end = told(&mut controller);
    assert_eq!(names(&told_of_end), [["default/t"]; 2]);
    assert!(told_of_end.values().all(|of| of[0].1 == crate::agent::NodeDuties::default()));
    let mut gone = world;
    let read = load(&[Source { name: "x".into(), text: service("s", spec) }], Strictness::Strict).unwrap();
    let keys: Vec<Key> = gone.store.delete(&read).unwrap().into_iter().map(|(key, _)| key).collect();
    tell(&mut controller, &gone.change(Some(&keys)).unwrap().1);
    let told_of_end = told(&mut controller);
    assert_eq!(names(&told_of_end), [["default/s"]; 2]);
    assert!(told_of_end.values().all(|of| of[0].1 == crate::agent::NodeDuties::default()));
}

#[test]
fn exactly_one_node_announces_an_address_and_with_policy_local_one_that_has_pods() {
    let mut controller = controller();
    let owner = |controller: &Controller| {
        controller.owners().values().map(|owner| owner.as_deref().map(str::to_owned)).collect::<Vec<_>>()
    };
    let pools = pool("pool", "addresses: [192.168.10.100/32]");
    let lb = |policy: &str| {
        service("s", &format!("type: LoadBalancer, externalTrafficPolicy: {policy}, selector: {{app: s}}"))
    };
    let world = applied(&mut controller, World::new(&cluster("")), &[pools, lb("Cluster")].concat());
    controller.publish();
    let first = owner(&controller);
    assert_eq!((first.len(), first[0].is_some()), (1, true));
    let other = if first[0].as_deref() == Some("a") { "b" } else { "a" };
    let world = applied(&mut controller, world, &lb("Local"));
    controller.publish();
    assert_eq!(owner(&controller), [None]);
    controller.set_pod(&"default/p".into(), Some(pod(other, 1, "s")));
    controller.publish();
    assert_eq!(owner(&controller), [Some(other.to_owned())]);
    let advertisement = "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: l}\nspec: {nodeSelectors: \
                         [{matchLabels: {name: NODE}}]}\n";
    let world = applied(&mut controller, world, &lb("Cluster"));
    applied(&mut controller, world, &advertisement.replace("NODE", other));
    controller.publish();
    assert_eq!(owner(&controller), [Some(other.to_owned())]);
}

#[test]
fn a_load_balancers_own_address_is_left_to_whoever_has_it() {
    let mut controller = controller();
    controller.set_pod(&"default/p".into(), Some(pod("a", 1, "s")));
    let ingress = |ip: &str, mode: &str| {
        let status = format!("status: {{loadBalancer: {{ingress: [{{ip: {ip}, ipMode: {mode}}}]}}}}\n");
        service("s", "type: LoadBalancer, selector: {app: s}") + &status
    };
    let pools = pool("pool", "addresses: [192.168.10.100/32]");
    let world =
        applied(&mut controller, World::new(&cluster("")), &[pools, ingress("203.0.113.7", "VIP")].concat());
    controller.publish();
    assert!(reached(&controller, "a", Origin::Inside, "203.0.113.7:80").is_some());
    assert!(controller.owners().is_empty(), "it is not ours to announce");
    let world = applied(&mut controller, world, &ingress("203.0.113.7", "Proxy"));
    controller.publish();
    assert_eq!(reached(&controller, "a", Origin::Inside, "203.0.113.7:80"), None);
    // Of a pool: the node that announces it is the load balancer.
    applied(&mut controller, world, &ingress("192.168.10.100", "Proxy"));
    controller.publish();
    let there =
        ["a", "b"].map(|node| reached(&controller, node, Origin::Inside, "192.168.10.100:80").is_some());
    assert_eq!(there.iter().filter(|there| **there).count(), 1);
}

#[test]
fn a_service_that_stands_in_the_way_is_told_of_and_gives_way() {
    let mut controller = controller();
    let world = applied(
        &mut controller,
        World::new(&cluster("")),
        &service("s", "type: NodePort, ports: [{port: 80, nodePort: 30000}]"),
    );
    // The same port of the node's address, by other means.
    let thief = service("t", "externalIPs: [192.168.10.2], ports: [{port: 30000}]");
    let world = applied(&mut controller, world, &thief);
    controller.publish();
    assert_eq!(controller.conflicts().len(), 1, "{:?}", controller.conflicts());
    assert!(registry(&controller, "b").len() == 2 && registry(&controller, "a").len() == 1);
    let (_, planning) = {
        let mut world = world;
        let read = load(&[Source { name: "x".into(), text: service("s", "") }], Strictness::Strict).unwrap();
        let keys: Vec<Key> = world.store.delete(&read).unwrap().into_iter().map(|(key, _)| key).collect();
        world.change(Some(&keys)).unwrap()
    };
    tell(&mut controller, &planning);
    controller.publish();
    assert_eq!(controller.conflicts().len(), 0);
    assert_eq!(registry(&controller, "a").len(), 1);
}

/// Who gives something up may be told of after who takes it.
#[test]
fn what_one_service_gives_up_another_has_at_once() {
    let both = |first: &str, second: &str| {
        let of = |name, address| service(name, &format!("externalIPs: [{address}]"));
        of("s", first) + &of("t", second)
    };
    for (first, second) in
        [("203.0.113.2", "203.0.113.3"), ("203.0.113.3", "203.0.113.1"), ("203.0.113.2", "203.0.113.1")]
    {
        let mut controller = controller();
        let world = applied(&mut controller, World::new(&cluster("")), &both("203.0.113.1", "203.0.113.2"));
        controller.publish();
        applied(&mut controller, world, &both(first, second));
        controller.publish();
        assert!(controller.conflicts().is_empty(), "{:?}", controller.conflicts());
    }
}

/// A change that may happen.
#[derive(Clone, Debug)]
enum Happens {
    Pod(u8, Option<(u8, bool, bool)>),
    Service(u8, Option<u8>),
    Slice(u8, u8, Option<u8>),
    Nodes(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let pod = (0..6u8, proptest::option::of((0..3u8, any::<bool>(), any::<bool>())));
    prop_oneof![
        4 => pod.prop_map(|(n, facts)| Happens::Pod(n, facts)),
        3 => (0..4u8, proptest::option::of(0..6u8)).prop_map(|(n, spec)| Happens::Service(n, spec)),
        2 => (0..3u8, 0..4u8, proptest::option::of(0..4u8)).prop_map(|(n, of, what)| Happens::Slice(n, of, what)),
        1 => (0..3u8).prop_map(Happens::Nodes),
    ]
}

fn object(kind: &Happens) -> Option<(Key, Option<String>)> {
    const SPECS: [&str; 6] = [
        "selector: {app: s0}",
        "selector: {app: s1, x: y}, type: NodePort, externalTrafficPolicy: Local",
        "type: LoadBalancer, selector: {x: y}, ipFamilyPolicy: PreferDualStack",
        "internalTrafficPolicy: Local, selector: {app: s2}",
        "clusterIP: None, selector: {app: s0}",
        "selector: {x: y}, trafficDistribution: PreferSameZone, sessionAffinity: ClientIP",
    ];
    let key = |kind: &str, name: String| Key::new(kind, "default", &name).unwrap();
    match kind {
        Happens::Service(n, spec) => {
            let name = format!("s{n}");
            let text = spec.map(|spec| {
                service(&name, SPECS[usize::from(spec)]).replace("{port: 80}", "{name: web, port: 80}")
            });
            Some((key("Service", name), text))
        }
        Happens::Slice(n, of, what) => {
            let endpoints = what.map(|last| {
                format!("[{{addresses: [10.9.9.{last}], nodeName: a, hints: {{forZones: [{{name: x}}]}}}}]")
            });
            let text = endpoints.map(|all| {
                slice(&format!("e{n}"), &all).replace("service-name: s}", &format!("service-name: s{of}}}"))
            });
            Some((key("EndpointSlice", format!("e{n}")), text))
        }
        Happens::Pod(..) | Happens::Nodes(_) => None,
    }
}

fn all_nodes(count: u8) -> Vec<NodeFacts> {
    let all = [node("a", 2, "x"), node("b", 3, "y"), node("c", 4, "")];
    all.into_iter().take(usize::from(count) + 1).collect()
}

/// Everything that each node balances, in an order of its own.
fn balanced(controller: &Controller) -> Vec<(String, Vec<String>)> {
    let of = |(node, registry): (&Arc<str>, &Registry)| {
        let mut services: Vec<String> = registry.iter().map(|service| format!("{service:?}")).collect();
        services.sort();
        (node.to_string(), services)
    };
    controller.registries().map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happened, in whatever steps: what is balanced is what follows from how things are.
    #[test]
    fn step_by_step_comes_to_the_same_as_all_at_once(
        steps in proptest::collection::vec((happens(), any::<bool>()), 1..24),
    ) {
        let base = [cluster(""), pool("pool", "addresses: [192.168.10.100-192.168.10.120, 'fd00:192:168:10::100/124']")];
        let mut world = World::new(&base.concat());
        let mut stepwise = controller();
        let planning = world.clone().change(None).unwrap().1;
        tell(&mut stepwise, &planning);
        let (mut pods, mut nodes) = (BTreeMap::new(), 1);
        for (step, publishes) in steps {
            match &step {
                Happens::Pod(n, facts) => {
                    let facts = facts.map(|(app, ready, terminating)| PodFacts {
                        ready, terminating, ..pod(["a", "b", "c"][usize::from(n % 3)], n + 1, &format!("s{app}"))
                    });
                    let name: Arc<str> = format!("default/p{n}").into();
                    stepwise.set_pod(&name, facts.clone());
                    pods.insert(name, facts);
                }
                Happens::Nodes(count) => {
                    nodes = *count;
                    stepwise.set_nodes(all_nodes(nodes));
                }
                Happens::Service(..) | Happens::Slice(..) => {
                    let (key, text) = object(&step).unwrap();
                    match text {
                        Some(text) => drop(world.keys(&text)),
                        None => world.store.take(&key),
                    }
                    let changed = world.clone().change(Some(std::slice::from_ref(&key)));
                    // A headless Service cannot become another: it goes instead.
                    let (next, planning) = changed.unwrap_or_else(|_| {
                        let mut world = world.clone();
                        world.store.take(&key);
                        world.change(Some(std::slice::from_ref(&key))).unwrap()
                    });
                    tell(&mut stepwise, &planning);
                    world = next;
                }
            }
            if publishes {
                stepwise.publish();
            }
        }
        stepwise.publish();
        let mut at_once = Controller::new([7; 16]);
        at_once.set_nodes(all_nodes(nodes));
        let Plan { frame, pools, advertisements, services, slices, .. } = &world.plan;
        at_once.set_frame(frame.masquerade_all, Arc::clone(pools), Arc::clone(advertisements));
        for (name, facts) in pods {
            at_once.set_pod(&name, facts);
        }
        for (name, planned) in services.iter() {
            at_once.set_service(name, Some(Arc::clone(planned)));
        }
        for (name, slice) in slices.iter() {
            at_once.set_slice(name, Some(Arc::clone(slice)));
        }
        at_once.publish();
        prop_assert_eq!(balanced(&stepwise), balanced(&at_once));
        prop_assert_eq!(stepwise.owners(), at_once.owners());
    }
}

/// The least time that it takes to apply one Service more, of several times.
fn one_more(there: usize) -> std::time::Duration {
    let mut controller = controller();
    let many: String = (0..there).map(|n| service(&format!("s{n}"), "selector: {app: s}")).collect();
    let mut world = applied(&mut controller, World::new(&cluster("")), &many);
    controller.publish();
    let mut times = Vec::new();
    for n in 0..30 {
        // What the cluster itself costs is another matter.
        let keys = world.keys(&service(&format!("more{n}"), "selector: {app: s}"));
        let begin = crate::clock::now();
        let planning =
            world.plan.change(&world.store, Some(&keys), &world.cluster, &BTreeMap::new()).unwrap();
        tell(&mut controller, &planning);
        let changed = controller.publish();
        times.push(begin.elapsed());
        assert_eq!(changed.len(), 2);
        world.plan = planning.plan;
    }
    times.into_iter().min().unwrap()
}

#[test]
fn one_more_costs_the_same_whatever_there_is() {
    let (few, many) = (one_more(1), one_more(3000));
    assert!(many < few * 3, "{few:?} with one, {many:?} with three thousand");
}
