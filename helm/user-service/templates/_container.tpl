{{/* The container. Its ports are numbers here and in the settings. */}}
{{- define "user-service.container" -}}
image: {{ include "user-service.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
env:
  {{- include "user-service.settings" . | nindent 2 }}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_UID
    valueFrom: {fieldRef: {fieldPath: metadata.uid}}
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: >-
      service.instance.id=$(POD_NAMESPACE).$(POD_NAME).user-service,k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME),k8s.container.name=user-service{{ range $key, $value := .Values.tracing.resourceAttributes }},{{ $key }}={{ $value }}{{ end }}
  {{- if eq .Values.store.type "postgres" }}
  {{- include "user-service.database.env" (list . .Values.store.postgres) | nindent 2 }}
  {{- end }}
  {{- with include "user-service.auth.env" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .Values.tls.enabled }}
  {{- include "user-service.tls.env" . | nindent 2 }}
  {{- end }}
  {{- with .Values.tracing.endpoint }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: grpc
    containerPort: 50051
  - name: admin
    containerPort: 9464
startupProbe:
  grpc: {port: 9464, service: liveness}
  {{- toYaml .Values.probes.startup | nindent 2 }}
readinessProbe:
  grpc: {port: 9464, service: ""}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
livenessProbe:
  grpc: {port: 9464, service: liveness}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
{{- with .Values.preStopSleepSeconds }}
lifecycle:
  preStop:
    sleep: {seconds: {{ . }}}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if eq .Values.store.type "sqlite" }}
  - name: data
    mountPath: /data
  {{- end }}
  {{- if .Values.tls.enabled }}
  - name: tls
    mountPath: /run/secrets/tls
    readOnly: true
  {{- end }}
  {{- if and (eq .Values.store.type "postgres") (include "user-service.database.volume" (list . .Values.store.postgres)) }}
  - name: database
    mountPath: /run/secrets/database
    readOnly: true
  {{- end }}
  {{- if .Values.auth.enabled }}
  - name: auth
    mountPath: /run/auth
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
