// Reads a JSON list of manifests on stdin and decodes each, strictly, into the Go type that its kind has in the project
// that defines it: an unknown field or a value of another type is told on stderr, and makes the exit code 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubejson "sigs.k8s.io/json" // as the API server reads JSON: case matters, and errors hold the field's path
)

var types = map[metav1.TypeMeta]func() any{
	{APIVersion: "monitoring.coreos.com/v1", Kind: "ServiceMonitor"}: func() any { return new(monitoring.ServiceMonitor) },
	{APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule"}: func() any { return new(monitoring.PrometheusRule) },
	{APIVersion: "cert-manager.io/v1", Kind: "Certificate"}:          func() any { return new(certmanager.Certificate) },
	{APIVersion: "cert-manager.io/v1", Kind: "Issuer"}:               func() any { return new(certmanager.Issuer) },
}

func main() {
	var manifests []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&manifests); err != nil {
		fmt.Fprintln(os.Stderr, "stdin is no JSON list:", err)
		os.Exit(1)
	}
	wrong := 0
	for _, manifest := range manifests {
		for _, err := range check(manifest) {
			fmt.Fprintln(os.Stderr, err)
			wrong = 1
		}
	}
	os.Exit(wrong)
}

// What is wrong with one manifest, each with its kind and name in front.
func check(manifest []byte) []error {
	var object metav1.PartialObjectMetadata
	if err := kubejson.UnmarshalCaseSensitivePreserveInts(manifest, &object); err != nil {
		return []error{fmt.Errorf("no Kubernetes object: %w", err)}
	}
	name := object.Kind + " " + object.Name
	typed, known := types[object.TypeMeta]
	if !known {
		return []error{fmt.Errorf("%s: no type is known for apiVersion %q", name, object.APIVersion)}
	}
	unknown, err := kubejson.UnmarshalStrict(manifest, typed())
	if err != nil {
		unknown = append(unknown, err)
	}
	for i := range unknown {
		unknown[i] = fmt.Errorf("%s: %w", name, unknown[i])
	}
	return unknown
}
