{{/* Names, labels and values that several objects share. */}}

{{/* Objects in the release's namespace. The longest suffix, -dashboard, still fits 63 characters. */}}
{{- define "halvard.fullname" -}}
{{- contains "halvard" .Release.Name | ternary .Release.Name (printf "%s-halvard" .Release.Name) | trunc 53 | trimSuffix "-" }}
{{- end }}

{{/* Objects of the whole cluster, and those in namespaces that other releases may serve too. */}}
{{- define "halvard.clusterName" -}}
{{ include "halvard.fullname" . }}-{{ .Release.Namespace }}
{{- end }}

{{- define "halvard.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The operator's Pods, and nothing else's: they never change between versions. */}}
{{- define "halvard.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "halvard.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "halvard.fullname" .) }}
{{- end }}

{{- define "halvard.priorityClass" -}}
{{- if or .Values.priorityClass.name (not .Values.priorityClass.create) }}{{ .Values.priorityClass.name }}
{{- else }}{{ include "halvard.clusterName" . }}{{ end }}
{{- end }}

{{/* An image by digest where there is one. Takes (list image defaultTag). */}}
{{- define "halvard.image" -}}
{{- with index . 0 }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default (index $ 1) }}{{ end }}
{{- end }}
{{- end }}

{{- define "halvard.operatorImage" -}}
{{ include "halvard.image" (list .Values.image .Chart.AppVersion) }}
{{- end }}

{{- define "halvard.collectorImage" -}}
{{ include "halvard.image" (list .Values.collector.image .Chart.AppVersion) }}
{{- end }}

{{/* The Secret with ca.crt, tls.crt and tls.key; empty where the operator signs its own with the chart's CA. */}}
{{- define "halvard.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled }}{{ include "halvard.fullname" . }}-tls{{ else }}{{ .Values.tls.existingSecret }}{{ end }}
{{- end }}

{{/* Every container of the chart: the restricted Pod Security Standard. */}}
{{- define "halvard.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "halvard.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where `helm test` runs its Study: a namespace that the operator serves. */}}
{{- define "halvard.testNamespace" -}}
{{- if or (empty .Values.namespaces) (has .Release.Namespace .Values.namespaces) }}{{ .Release.Namespace }}
{{- else }}{{ first .Values.namespaces }}{{ end }}
{{- end }}

{{/* Fails where the cluster lacks an API that a value needs. Takes (list root value api provider). */}}
{{- define "halvard.requireApi" -}}
{{- $root := index . 0 }}
{{- if not ($root.Capabilities.APIVersions.Has (index . 2)) }}
{{- fail (printf "%s is true, but this cluster has no %s: install %s first, or set it to false" (index . 1) (index . 2) (index . 3)) }}
{{- end }}
{{- end }}

{{/*
An object that is there while `helm test` runs. Where that fails, the Pod stays, with its log, and since Helm 3.19 nothing
else does: the others have succeeded. Takes its place in the order.
*/}}
{{- define "halvard.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
