// Package kubernetes has no code: it holds the manifests of Polyphony, and the tests that keep them true.
package kubernetes

import (
	stdjson "encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/santhosh-tekuri/jsonschema/v6"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"polyphony/pkg/nodes"
)

var services = []string{"ingester", "enricher", "aggregator"}

// manifests are the objects that an overlay makes, decoded strictly: a misspelt field is an error.
type manifests struct {
	deployments  map[string]*appsv1.Deployment
	statefulSets map[string]*appsv1.StatefulSet
	services     map[string]*corev1.Service
	configMaps   map[string]*corev1.ConfigMap
	secrets      map[string]*corev1.Secret
	policies     map[string]*networkingv1.NetworkPolicy
	pods         map[string]corev1.PodSpec // of deployments and stateful sets
	podLabels    map[string]map[string]string
}

func build(t *testing.T, overlay string) manifests {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay)
	if err != nil {
		t.Fatalf("building %s: %v", overlay, err)
	}
	m := manifests{
		map[string]*appsv1.Deployment{}, map[string]*appsv1.StatefulSet{}, map[string]*corev1.Service{}, map[string]*corev1.ConfigMap{},
		map[string]*corev1.Secret{}, map[string]*networkingv1.NetworkPolicy{}, map[string]corev1.PodSpec{}, map[string]map[string]string{},
	}
	for _, r := range made.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		name := r.GetName()
		switch kind := r.GetKind(); kind {
		case "Deployment":
			d := decode[appsv1.Deployment](t, name, text)
			m.deployments[name], m.pods[name], m.podLabels[name] = d, d.Spec.Template.Spec, d.Spec.Template.Labels
		case "StatefulSet":
			s := decode[appsv1.StatefulSet](t, name, text)
			m.statefulSets[name], m.pods[name], m.podLabels[name] = s, s.Spec.Template.Spec, s.Spec.Template.Labels
		case "Service":
			m.services[name] = decode[corev1.Service](t, name, text)
		case "ConfigMap":
			m.configMaps[name] = decode[corev1.ConfigMap](t, name, text)
		case "Secret":
			m.secrets[name] = decode[corev1.Secret](t, name, text)
		case "NetworkPolicy":
			m.policies[name] = decode[networkingv1.NetworkPolicy](t, name, text)
		case "Namespace":
			decode[corev1.Namespace](t, name, text)
		default:
			t.Errorf("%s/%s: no type to decode it with", kind, name)
		}
		if kind := r.GetKind(); kind != "Namespace" && r.GetNamespace() == "" {
			t.Errorf("%s/%s stands in no namespace", kind, name)
		}
	}
	return m
}

func decode[T any](t *testing.T, name string, text []byte) *T {
	t.Helper()
	v, err := decodeStrict[T](text)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return v
}

// decodeStrict decodes as the API server does with strict field validation: unknown and repeated fields are errors, and
// so is a field in another case.
func decodeStrict[T any](text []byte) (*T, error) {
	var v T
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return &v, err
	}
	strict, err := json.UnmarshalStrict(asJSON, &v)
	return &v, errors.Join(append(strict, err)...)
}

func TestMisspeltFieldsAreRefused(t *testing.T) {
	for _, bad := range []string{"enableServiceLink: false", "enableservicelinks: false", "enableServiceLinks: 0", "hostname: a, hostname: b"} {
		if _, err := decodeStrict[appsv1.Deployment]([]byte("spec: {template: {spec: {" + bad + "}}}")); err == nil {
			t.Errorf("%s decodes, so the other tests prove little", bad)
		}
	}
}

func TestDevOverlayHasThreeServices(t *testing.T) {
	m := build(t, "overlays/dev")
	want := map[string][]string{ // every variable is one that the service reads
		"ingester":   {"POLYPHONY_HTTP_ADDR", "POLYPHONY_NATS_URL", "POLYPHONY_LOG_LEVEL", "POLYPHONY_NODES_DIR", "POLYPHONY_TOKENS_FILE"},
		"enricher":   {"POLYPHONY_HTTP_ADDR", "POLYPHONY_NATS_URL", "POLYPHONY_LOG_LEVEL", "POLYPHONY_AUTHOR_KEY_FILE"},
		"aggregator": {"POLYPHONY_HTTP_ADDR", "POLYPHONY_NATS_URL", "POLYPHONY_LOG_LEVEL", "POLYPHONY_CLICKHOUSE_ADDR", "POLYPHONY_CLICKHOUSE_USER", "POLYPHONY_CLICKHOUSE_PASSWORD_FILE"},
	}
	for _, name := range services {
		d := m.deployments[name]
		if d == nil {
			t.Errorf("no deployment %s", name)
			continue
		}
		c := d.Spec.Template.Spec.Containers[0]
		if c.Image != "polyphony-"+name {
			t.Errorf("%s: image %s is not the one that skaffold builds", name, c.Image)
		}
		var got []string
		for _, e := range c.Env {
			got = append(got, e.Name)
			if !strings.HasPrefix(e.Name, "POLYPHONY_") {
				t.Errorf("%s: variable %s", name, e.Name)
			}
			if strings.HasSuffix(e.Name, "_FILE") || strings.HasSuffix(e.Name, "_DIR") {
				if !slices.ContainsFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool { return strings.HasPrefix(e.Value, v.MountPath) && v.ReadOnly }) {
					t.Errorf("%s: %s=%s is mounted by no read-only volume", name, e.Name, e.Value)
				}
			}
		}
		slices.Sort(got)
		slices.Sort(want[name])
		if !slices.Equal(got, want[name]) {
			t.Errorf("%s reads %v, want %v", name, got, want[name])
		}
		for probe, p := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
			if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != probe || p.HTTPGet.Port.StrVal != "http" {
				t.Errorf("%s: no probe on %s", name, probe)
			}
		}
	}
	for _, name := range []string{"nats", "clickhouse"} {
		s := m.statefulSets[name]
		if s == nil {
			t.Errorf("no stateful set %s", name)
			continue
		}
		if len(s.Spec.VolumeClaimTemplates) != 1 || m.services[s.Spec.ServiceName] == nil {
			t.Errorf("%s keeps its data nowhere, or has no service", name)
		}
	}
}

// TestServicesKnowTheirVariables: an unknown one stops the start.
func TestServicesKnowTheirVariables(t *testing.T) {
	tag := regexp.MustCompile("`env:\"(POLYPHONY_[A-Z_]+)\"")
	known := func(file string) map[string]bool {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, m := range tag.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		if len(names) == 0 {
			t.Errorf("%s: no variable is declared as this test knows it", file)
		}
		return names
	}
	shared := known("../../pkg/service/service.go")
	m := build(t, "overlays/dev")
	for _, name := range services {
		own := known("../../services/" + name + "/main.go")
		for _, e := range m.deployments[name].Spec.Template.Spec.Containers[0].Env {
			if !own[e.Name] && !shared[e.Name] {
				t.Errorf("%s does not know %s", name, e.Name)
			}
		}
	}
}

func TestPodsAreHardened(t *testing.T) {
	for name, pod := range build(t, "overlays/dev-grafana").pods {
		if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
			t.Errorf("%s: service links are on; their variables stop the start", name)
		}
		if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
			t.Errorf("%s: carries a token that it does not need", name)
		}
		if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: may run as root, or without seccomp", name)
		}
		for _, c := range pod.Containers {
			s := c.SecurityContext
			if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
				s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s: its container may do more than it has to", name)
			}
			if c.LivenessProbe == nil || c.ReadinessProbe == nil {
				t.Errorf("%s: is not probed", name)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: asks for no resources, or is not bounded", name)
			}
		}
	}
}

// TestEveryReferenceResolves follows names from pods to what they mount and read.
func TestEveryReferenceResolves(t *testing.T) {
	for _, overlay := range []string{"overlays/dev", "overlays/dev-grafana"} {
		t.Run(filepath.Base(overlay), func(t *testing.T) { checkReferences(t, build(t, overlay)) })
	}
}

func checkReferences(t *testing.T, m manifests) {
	secret := func(pod, name, key string) {
		t.Helper()
		s := m.secrets[name]
		if s == nil {
			t.Errorf("%s: no secret %s", pod, name)
		} else if _, ok := s.Data[key]; !ok && key != "" {
			t.Errorf("%s: secret %s has no %s", pod, name, key)
		}
	}
	for name, pod := range m.pods {
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
			if v.ConfigMap != nil {
				config := m.configMaps[v.ConfigMap.Name]
				if config == nil {
					t.Errorf("%s: no config map %s", name, v.ConfigMap.Name)
					continue
				}
				for _, i := range v.ConfigMap.Items {
					if _, ok := config.Data[i.Key]; !ok {
						t.Errorf("%s: config map %s has no %s", name, v.ConfigMap.Name, i.Key)
					}
				}
			}
			if v.Secret != nil {
				secret(name, v.Secret.SecretName, "")
				for _, i := range v.Secret.Items {
					secret(name, v.Secret.SecretName, i.Key)
				}
			}
		}
		if s := m.statefulSets[name]; s != nil {
			for _, claim := range s.Spec.VolumeClaimTemplates {
				volumes[claim.Name] = true
			}
		}
		for _, c := range pod.Containers {
			for _, mount := range c.VolumeMounts {
				if !volumes[mount.Name] {
					t.Errorf("%s: no volume %s", name, mount.Name)
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
					secret(name, e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key)
				}
			}
		}
	}
	for name, s := range m.services {
		found := false
		for pod, labels := range m.podLabels {
			found = found || matches(s.Spec.Selector, labels) && pod != ""
		}
		if !found {
			t.Errorf("service %s selects no pod", name)
		}
	}
	for file, key := range map[string]string{"ingester-tokens": "tokens", "author-key": "author-key", "nats": "url"} {
		found := false
		for name, s := range m.secrets {
			if strings.HasPrefix(name, file+"-") && len(s.Data[key]) > 0 {
				found = true
			}
		}
		if !found {
			t.Errorf("no secret %s with a %s", file, key)
		}
	}
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

// TestNodesAreMountedAsTheyStand rebuilds what the ingester finds in its volume, as Kubernetes lays it out: files below
// a dated folder, reached through symbolic links. It has to load, and to be the very rules of the directory.
func TestNodesAreMountedAsTheyStand(t *testing.T) {
	m := build(t, "overlays/dev")
	volume := t.TempDir()
	dated := filepath.Join(volume, "..2026_05_25_14_30_00.1234")
	for _, v := range m.pods["ingester"].Volumes {
		if v.Name != "nodes" {
			continue
		}
		for _, item := range v.ConfigMap.Items {
			file := filepath.Join(dated, filepath.FromSlash(item.Path))
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(m.configMaps[v.ConfigMap.Name].Data[item.Key]), 0o644); err != nil {
				t.Fatal(err)
			}
			top, _, _ := strings.Cut(item.Path, "/")
			if err := os.Symlink(filepath.Join("..data", top), filepath.Join(volume, top)); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(filepath.Base(dated), filepath.Join(volume, "..data")); err != nil {
		t.Fatal(err)
	}
	mounted, err := nodes.LoadDir(volume)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := nodes.LoadDir("../nodes")
	if err != nil {
		t.Fatal(err)
	}
	if mounted.Version() != direct.Version() {
		t.Errorf("the volume has other rules than deploy/nodes: a file is missing in nodes.yaml or in deploy/nodes/Kustomization")
	}
}

// TestBaseContainsNoSecret: only the dev overlay makes secrets, and says that they are none.
func TestBaseContainsNoSecret(t *testing.T) {
	err := filepath.WalkDir("base", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "kind: Secret") || strings.Contains(string(text), "secretGenerator") {
			t.Errorf("%s makes a secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestEveryFileIsUsed: a manifest that no kustomization names is deployed by nobody.
func TestEveryFileIsUsed(t *testing.T) {
	for _, dir := range []string{"base", "overlays/dev", "overlays/dev-grafana", "../nats", "../clickhouse", "../grafana"} {
		text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(dir, path)
			if err == nil && !d.IsDir() && name != "kustomization.yaml" && filepath.Ext(name) != ".go" && !strings.Contains(string(text), name) {
				t.Errorf("%s is not named in %s/kustomization.yaml", name, dir)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNatsTakesItsConfiguration reads nats.conf as the server does.
func TestNatsTakesItsConfiguration(t *testing.T) {
	for name, value := range map[string]string{"POD_NAME": "nats-0", "NATS_PASSWORD": "a", "NATS_SUBSCRIBER_PASSWORD": "b"} {
		t.Setenv(name, value)
	}
	o, err := server.ProcessConfigFile("../nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxPayload != 8<<20 && o.MaxPayload != 8_000_000 || !o.JetStream || o.StoreDir != "/data" || o.ServerName != "nats-0" || o.Port != 4222 {
		t.Errorf("read payload %d, jetstream %t in %q, name %q, port %d", o.MaxPayload, o.JetStream, o.StoreDir, o.ServerName, o.Port)
	}
	claim := build(t, "overlays/dev").statefulSets["nats"].Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().Value()
	if o.JetStreamMaxStore >= claim {
		t.Errorf("the streams may take %d bytes of a volume of %d", o.JetStreamMaxStore, claim)
	}
}

func TestClickHouseConfigurationSaysWhatIsRelied(t *testing.T) {
	for file, want := range map[string]map[string]string{
		"../clickhouse/users.d/polyphony.xml": {
			"clickhouse/profiles/default/enable_shared_storage_snapshot_in_query": "1",
			"clickhouse/profiles/dashboards/readonly":                             "1",
			"clickhouse/users/polyphony/profile":                                  "default",
			"clickhouse/users/grafana/profile":                                    "dashboards",
		},
		"../clickhouse/config.d/polyphony.xml": {"clickhouse/path": "/var/lib/clickhouse/", "clickhouse/logger/console": "1", "clickhouse/merge_tree/allow_experimental_replacing_merge_with_cleanup": "0"},
	} {
		got, err := readXML(file)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for path, value := range want {
			if got[path] != value {
				t.Errorf("%s: %s is %q, want %q", file, path, got[path], value)
			}
		}
	}
}

// readXML gives the text of every element by its path.
func readXML(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]string{}
	var path []string
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if err != nil {
			return values, err
		}
		switch e := token.(type) {
		case xml.StartElement:
			path = append(path, e.Name.Local)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if text := strings.TrimSpace(string(e)); text != "" {
				values[strings.Join(path, "/")] = text
			}
		}
	}
}

// TestSkaffold checks skaffold.yaml against the schema that Skaffold publishes, and against what is deployed.
func TestSkaffold(t *testing.T) {
	text, err := os.ReadFile("../../skaffold.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Build struct {
			Artifacts []struct {
				Image string
				Ko    struct{ Main string }
			}
		}
		deployed
		Profiles []deployed
	}
	if err := stdjson.Unmarshal(asJSON, &config); err != nil {
		t.Fatal(err)
	}
	images := map[string]string{}
	for _, a := range config.Build.Artifacts {
		images[a.Image] = a.Ko.Main
	}
	for _, s := range services {
		if images["polyphony-"+s] != "./services/"+s {
			t.Errorf("image polyphony-%s is built from %q", s, images["polyphony-"+s])
		}
	}
	for _, d := range append(config.Profiles, config.deployed) {
		for _, path := range d.Manifests.Kustomize.Paths {
			m := build(t, filepath.Join("../..", path))
			for _, f := range append(d.PortForward, config.PortForward...) {
				s := m.services[f.ResourceName]
				if s == nil || !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == f.Port }) {
					t.Errorf("port %d of %s is forwarded but not served", f.Port, f.ResourceName)
				}
			}
		}
	}

	if err := againstSchema("../../../shared/schemas/skaffold-v4beta13.schema.json", asJSON); errors.Is(err, fs.ErrNotExist) {
		t.Skip("Skaffold's schema is not beside the repository: skaffold.yaml is checked in part only")
	} else if err != nil {
		t.Error(err)
	}
}

// deployed is what Skaffold deploys, always or with a profile.
type deployed struct {
	Manifests struct {
		Kustomize struct{ Paths []string }
	}
	PortForward []struct {
		ResourceName string
		Port         int32
	}
}

func againstSchema(schema string, document []byte) error {
	f, err := os.Open(schema)
	if err != nil {
		return err
	}
	defer f.Close()
	parsed, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("skaffold.json", parsed); err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	compiled, err := c.Compile("skaffold.json")
	if err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	instance, err := jsonschema.UnmarshalJSON(strings.NewReader(string(document)))
	if err != nil {
		return err
	}
	if err := compiled.Validate(instance); err != nil {
		return fmt.Errorf("skaffold.yaml: %w", err)
	}
	return nil
}
