{{/* Names and labels. 52 characters leave room for what Kubernetes appends to the name of a StatefulSet. */}}
{{- define "user-service.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "user-service.fullname" -}}
{{- $name := include "user-service.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "user-service.headless" -}}
{{ include "user-service.fullname" . }}-headless
{{- end }}

{{/* What Prometheus calls the release. Monitor, rules and dashboard agree on it and on the namespace. */}}
{{- define "user-service.job" -}}
{{- default (include "user-service.fullname" .) .Values.monitor.job }}
{{- end }}

{{/* A file of `make dashboards` as it is for this release: (list $ name). */}}
{{- define "user-service.file" -}}
{{- $name := index . 1 -}}
{{- with index . 0 -}}
{{- $job := include "user-service.job" . }}
{{- $uid := printf "%s/%s" .Release.Namespace $job | sha256sum | trunc 12 | printf "user-service-%s" }}
{{- .Files.Get (printf "files/%s" $name) | trim | replace "CHART_NAMESPACE" .Release.Namespace | replace "CHART_JOB" $job | replace "CHART_UID" $uid }}
{{- end }}
{{- end }}

{{- define "user-service.serviceAccount" -}}
{{- default (ternary (include "user-service.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "user-service.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What a selector may use: it never changes. The component keeps the test's pod out of the Services. */}}
{{- define "user-service.selector" -}}
app.kubernetes.io/name: {{ include "user-service.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end }}

{{/* Labels of an object: (list $ component). */}}
{{- define "user-service.labels" -}}
{{- $component := index . 1 -}}
{{- with index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/name: {{ include "user-service.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ $component }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}
