//! The agent of a node: what listens in its own namespace.

use super::*;
use vswitch::agent::{Agents, HEALTHZ_PORT, HealthCheck, NodeDuties, Relay};
use vswitch::cluster::Protocol;

fn relay(protocol: Protocol, to: &[&str]) -> Vec<Relay> {
    let to: Vec<std::net::SocketAddr> = to.iter().map(|to| to.parse().unwrap()).collect();
    let families = [["127.0.0.1", "10.244.0.22"], ["::1", "fd00:10:244::22"]];
    let relay = |listen: [&str; 2]| {
        let listen: Vec<std::net::IpAddr> = listen.map(|address| address.parse().unwrap()).to_vec();
        let to = to.iter().copied().filter(|to| to.is_ipv4() == listen[0].is_ipv4()).collect();
        Relay { protocol, listen, port: 30080, to }
    };
    families.map(relay).to_vec()
}

fn check(local_endpoints: u32) -> Vec<HealthCheck> {
    vec![HealthCheck { port: 30900, namespace: "default".into(), name: "web".into(), local_endpoints }]
}

const TO: [&str; 2] = ["127.0.0.1:8080", "[::1]:8080"];

pub(crate) fn an_agent_listens_for_its_node(lab: &Lab) {
    let mut helper = lab.start();
    let mut spec = lab.spec("x", 22);
    spec.name = format!("{}.node.a", lab.mark);
    let namespace = helper.create(&spec).unwrap().namespace;
    let runner = Runner::start(&lab.options).unwrap();
    let agents = Agents::start(&lab.options.state).unwrap();
    let workload = agents.workload(&lab.mark, "a");
    assert_eq!(workload.namespace, namespace.name);
    let mut containers = containers(lab);
    // The runner ends what it finds in the node's namespace and does not know.
    spec.name = lab.name("guest");
    let guest = helper.join(&spec, &namespace.name).unwrap();
    // A server that is none of ours, for both families and protocols.
    let server = "import socket,threading\n\
            def tcp(f,a):\n s=socket.socket(f);s.setsockopt(1,2,1);s.bind((a,8080));s.listen()\n \
            while True:\n  c,p=s.accept();d=c.recv(99)\n  while len(d)<8: d+=c.recv(99)\n  c.sendall(d[::-1]);c.close()\n\
            def udp(f,a):\n s=socket.socket(f,2);s.bind((a,8080))\n \
            while True:\n  d,p=s.recvfrom(99);s.sendto(d[::-1],p)\n\
            for t in (tcp,udp):\n for f,a in ((2,\"127.0.0.1\"),(10,\"::1\")): threading.Thread(target=t,args=(f,a)).start()\n";
    let text = format!("exec python3 -u -c '{server}'");
    containers.run(&guest.name, &script(lab, "web", &text)).unwrap();
    let bash = |text: &str| {
        let ran = output(&enter(&namespace, "timeout 5 bash -c").arguments([text]));
        format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
    };
    let ask = |protocol: &str, host: &str| {
        bash(&format!("exec 3<>/dev/{protocol}/{host}/30080 || exit; printf 12345678 >&3; head -c 8 <&3"))
    };
    let get = |host: &str, port: u16, path: &str| {
        let url = format!("http://{host}:{port}{path}");
        bash(&format!("curl -sS -g -m 4 -w ' %{{http_code}}' '{url}'"))
    };
    runner.add(workload.clone());
    let set = |agents: &Agents, relays, health_checks| {
        agents.set("a", vec![("default/web".into(), NodeDuties { relays, health_checks })]);
    };
    set(&agents, [relay(Protocol::Tcp, &TO), relay(Protocol::Udp, &TO)].concat(), check(2));
    let everywhere = ["127.0.0.1", "::1", "10.244.0.22", "fd00:10:244::22"];
    for host in everywhere {
        for protocol in ["tcp", "udp"] {
            until(&format!("{protocol} {host} is relayed"), || ask(protocol, host) == "87654321");
        }
    }
    let well = "{\"service\":{\"namespace\":\"default\",\"name\":\"web\"},\"localEndpoints\":2,\"serviceProxyHealthy\":true}";
    for host in ["10.244.0.22", "[fd00:10:244::22]"] {
        let told = get(host, 30900, "/");
        let (words, status) = told.rsplit_once(' ').unwrap();
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!((parsed(words), status), (parsed(well), "200"));
        assert!(get(host, HEALTHZ_PORT, "/healthz").ends_with(" 200"));
    }
    // It is started again when it dies, and told again.
    let agent = |containers: &mut Containers| info(containers, &namespace.name, "agent");
    let first = agent(&mut containers).pid;
    containers.signal(&namespace.name, "agent", SIGKILL).unwrap();
    until("it is started again", || agent(&mut containers).pid != first);
    until("it relays again", || ask("tcp", "127.0.0.1") == "87654321");
    // Without a vswitch it goes on, and says that all is not well; the next one finds it there.
    drop((agents, runner));
    until("the check fails", || get("10.244.0.22", 30900, "/").ends_with(" 503"));
    assert_eq!(ask("tcp", "::1"), "87654321");
    let agents = Agents::start(&lab.options.state).unwrap();
    let runner = Runner::start(&lab.options).unwrap();
    runner.add(workload.clone());
    set(&agents, relay(Protocol::Tcp, &TO), check(1));
    until("the check succeeds", || get("10.244.0.22", 30900, "/").ends_with(" 200"));
    assert_eq!(agent(&mut containers).starts, 2, "it is the one that was there");
    // Nobody to lead to: refused by whatever way.
    set(&agents, relay(Protocol::Tcp, &[]), check(0));
    until("the check fails", || get("10.244.0.22", 30900, "/").ends_with(" 503"));
    for host in everywhere {
        until("it is refused", || ask("tcp", host).contains("refused"));
    }
    set(&agents, relay(Protocol::Tcp, &["127.0.0.1:1"]), Vec::new());
    until("it is reset", || ask("tcp", "127.0.0.1").contains("reset"));
    until("nobody answers", || {
        get("10.244.0.22", 30900, "/").contains("refused") || get("10.244.0.22", 30900, "/").contains("Could")
    });
    remove(&runner, &workload);
    drop((agents, runner));
    clean(lab, helper);
}

#[test]
fn root_an_agent_listens_for_its_node() {
    as_root("c-agent", |lab| an_agent_listens_for_its_node(lab));
}
