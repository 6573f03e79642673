use super::*;

fn source(text: &str) -> [Source; 1] {
    [Source { name: "lab.yaml".into(), text: text.into() }]
}

fn problems(text: &str) -> Vec<String> {
    let invalid = load(&source(text), Strictness::Strict).unwrap_err();
    invalid.problems.iter().map(ToString::to_string).collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: web\n    image: vswitch/http\n";

#[test]
fn ordinary_objects_are_read() {
    let text = format!(
        "{POD}---\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Namespace, metadata: {{name: shop}}}}\n\
         - {{apiVersion: v1, kind: Node, metadata: {{name: n1}}, spec: {{podCIDRs: [10.0.0.0/24]}}}}\n---\n\
         apiVersion: vswitch/v1alpha1\nkind: Cluster\nspec:\n  mtu: 9000\n  podCIDRs: [10.1.0.0/16]\n  segments:\n\
         \x20 - {{name: rack, cidrs: [10.20.30.0/24], external: true}}\n---\napiVersion: apps/v1\nkind: Deployment\n\
         metadata: {{name: web, namespace: shop}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: web}}}}\n\
         \x20 template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers: [{{name: web, ports: \
         [{{containerPort: 80}}]}}]\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\n"
    );
    let read = load(&source(&text), Strictness::Strict).unwrap();
    assert_eq!(read.objects.len(), 5);
    let Object::Cluster(cluster) = &read.objects[3].object else { panic!("no cluster") };
    assert_eq!(cluster.spec.mtu, Some(9000));
    assert!(cluster.spec.segments.as_ref().unwrap()[0].external);
    let Object::Deployment(deployment) = &read.objects[4].object else { panic!("no deployment") };
    assert_eq!(deployment.spec.replicas, Some(2));
    let warnings: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["lab.yaml:34:1: ConfigMap c: objects of this kind have no effect here"]);
}

#[test]
fn each_fault_says_where_and_what() {
    let cases = [
        ("hello", "lab.yaml:1:1: should be an object with apiVersion and kind"),
        ("kind: Pod", "lab.yaml:1:1: `apiVersion` is missing or no string"),
        ("apiVersion: v1\nkind: Pood\n", "lab.yaml:2:7: there is no kind \"Pood\"; did you mean Pod?"),
        ("apiVersion: v2\nkind: Pod\n", "lab.yaml:2:7: Pod is of apiVersion v1, not \"v2\""),
        ("apiVersion: v1\nkind: List\n", "lab.yaml:1:1: List: `items` is missing or no list"),
        ("a: [", "lab.yaml:2:1: while parsing a node, did not find expected node content"),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn fields_are_held_against_the_schema_of_kubernetes() {
    let text = POD.replace("image", "imge").replace("containers:", "nodename: n1\n  containers:");
    let expected = [
        "lab.yaml:5:3: Pod web: spec.nodename: no such field in PodSpec; did you mean `nodeName`?",
        "lab.yaml:8:5: Pod web: spec.containers[0].imge: no such field in Container; did you mean `image`?",
    ];
    assert_eq!(problems(&text), expected);
    let lenient = load(&source(&text), Strictness::Lenient).unwrap();
    assert_eq!((lenient.objects.len(), lenient.warnings.len()), (1, 2));
}

#[test]
fn all_faults_of_all_files_are_told_and_bounded() {
    let many = "---\nkind: x\n".repeat(80);
    let invalid = load(&source(&many), Strictness::Strict).unwrap_err();
    assert_eq!((invalid.problems.len(), invalid.more), (50, 30));
    assert!(invalid.to_string().ends_with("(and 30 more)"));
}

#[test]
fn an_object_defined_twice_is_told_with_both_places() {
    let twice = format!("{POD}---\n{POD}");
    assert_eq!(problems(&twice), ["lab.yaml:9:1: Pod web: is defined twice; first at lab.yaml:1:1"]);
    let nameless = POD.replace("{name: web}", "{}");
    assert_eq!(problems(&nameless), ["lab.yaml:1:1: Pod: `metadata.name` is missing"]);
}
