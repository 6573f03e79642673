//! Namespaces that others made.

use super::*;

/// Uses somebody else's namespace for a pod, from its making to its end. `look` runs `ip -j` there.
fn uses_a_foreign_namespace(
    lab: &Lab,
    helper: &mut Helper,
    existing: Existing,
    look: impl Fn(&str) -> serde_json::Value,
) {
    let before = look("link").as_array().unwrap().len();
    let mut spec = lab.spec("guest", 13);
    spec.interface = "guest0".to_owned();
    spec.hostname = Some("guest".to_owned());
    (spec.gateway_v4, spec.gateway_v6) = (None, None);
    spec.existing = Some(existing);
    let names = lab.names();
    let created = helper.create(&spec).unwrap();
    assert_eq!(lab.names(), names, "it gets no further name");
    let links = look("addr");
    let find = |name: &str| {
        let found = links.as_array().unwrap().iter().find(|link| link["ifname"] == name);
        found.unwrap_or_else(|| panic!("{name} in {links}")).clone()
    };
    assert!(find("guest0")["addr_info"].to_string().contains("10.244.0.13"), "{links}");
    assert_eq!(links.as_array().unwrap().len(), before + 1);
    let lo_is_up = find("lo")["flags"].to_string().contains("UP");
    assert_eq!(created.namespace.warnings.is_empty(), lo_is_up, "{:?}", created.namespace.warnings);

    let mut containers = containers(lab);
    let inside = script(lab, "inside", "hostname; echo /sys/class/net/*");
    let (code, seen) = run(&mut containers, &created.namespace, &inside);
    assert!(code == 0 && seen.starts_with("guest\n") && seen.contains("/sys/class/net/guest0"), "{seen}");
    // The same name twice is the kernel's to refuse, and nothing is left of the second.
    let mut twice = spec.clone();
    twice.name = lab.name("twice");
    twice.mac = netstack::addr::MacAddr::local(14);
    let error = failure(helper.create(&twice).unwrap_err());
    assert!(error.message.contains("guest0") && error.left_behind.is_empty(), "{error}");
    assert_eq!(look("link").as_array().unwrap().len(), before + 1);

    // The queue is still open here, and yet the interface goes.
    let tap = created.tap;
    assert_eq!(helper.delete(&spec.name).unwrap(), Vec::<String>::new());
    assert_eq!(look("link").as_array().unwrap().len(), before);
    drop(tap);
    until("the pod's processes are gone", || processes_with(&spec.name).is_empty());
}

fn what_is_no_namespace_is_refused(lab: &Lab, helper: &mut Helper) {
    for (existing, expected) in [
        (Existing::Name(lab.name("absent")), FailureKind::NotFound),
        (Existing::Path("/no/such/path".into()), FailureKind::NotFound),
        (Existing::Pid(u32::MAX >> 2), FailureKind::NotFound),
        (Existing::Path("/etc/passwd".into()), FailureKind::Invalid),
        (Existing::Path("/proc/self/ns/uts".into()), FailureKind::System),
        (Existing::Path("relative".into()), FailureKind::Invalid),
    ] {
        let mut spec = lab.spec("wrong", 15);
        spec.existing = Some(existing.clone());
        let error = failure(helper.create(&spec).unwrap_err());
        assert_eq!((error.kind, error.left_behind.len()), (expected, 0), "{existing:?}: {error}");
    }
    until("nothing is left of them", || processes_with(&lab.name("wrong")).is_empty());
    assert!(!lab.options.state.namespaces().join(format!("{}.json", lab.name("wrong"))).exists());
}

#[test]
fn root_a_namespace_of_somebody_else_is_used_and_left_as_it_was() {
    as_root("c-exist", |lab| a_namespace_of_somebody_else_is_used_and_left_as_it_was(lab));
}

fn a_namespace_of_somebody_else_is_used_and_left_as_it_was(lab: &Lab) {
    let mut helper = lab.start();
    what_is_no_namespace_is_refused(lab, &mut helper);
    let name = lab.name("foreign");
    let ip = |arguments: &[&str]| success(&Command::new("ip").args(arguments).output().unwrap());
    ip(&["netns", "add", &name]);
    let mut resident = Command::new("ip").args(["netns", "exec", &name, "sleep", "1000"]).spawn().unwrap();
    let path = Path::new("/run/netns").join(&name);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let of_resident = format!("/proc/{}/ns/net", resident.id());
    until("the resident has moved in", || fs::read_link(&of_resident).is_ok_and(|theirs| theirs != own));
    let look = |words: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, "ip", "-j"]).args(words.split_whitespace());
        serde_json::from_str(&success(&command.output().unwrap())).unwrap()
    };
    // As `ip netns add` leaves it, and as most have it.
    uses_a_foreign_namespace(lab, &mut helper, Existing::Name(name.clone()), look);
    ip(&["-n", &name, "link", "set", "lo", "up"]);
    for existing in [Existing::Path(path), Existing::Pid(resident.id()), Existing::Name(name.clone())] {
        uses_a_foreign_namespace(lab, &mut helper, existing, look);
    }
    assert!(lives(resident.id()), "nobody's process is touched");
    resident.kill().unwrap();
    resident.wait().unwrap();
    assert_eq!(lab.names(), std::slice::from_ref(&name));
    ip(&["netns", "del", &name]);
    clean(lab, helper);
}

/// Of namespaces that it did not make an ordinary user's helper can join those of its own pods only.
pub(crate) fn an_ordinary_user_joins_its_own(lab: &Lab) {
    let mut helper = lab.start();
    what_is_no_namespace_is_refused(lab, &mut helper);
    let host = helper.create(&lab.spec("host", 16)).unwrap().namespace;
    let look = |words: &str| ip(&host, words);
    for existing in [Existing::Pid(host.pause_pid), Existing::Name(host.name.clone())] {
        uses_a_foreign_namespace(lab, &mut helper, existing, look);
    }
    let mut spec = lab.spec("hosts", 17);
    spec.existing = Some(Existing::Pid(std::process::id()));
    let error = failure(helper.create(&spec).unwrap_err());
    assert_eq!(error.kind, FailureKind::NotPermitted);
    assert!(error.message.contains("only root"), "{error}");
    clean(lab, helper);
}
