{{/* The versions of the Secrets that a pod reads only at its start; nothing where Helm asks no cluster. No sum of what they hold: pods are read by more people. */}}
{{- define "user-service.secrets" -}}
{{- $names := list }}
{{- if eq .Values.store.type "postgres" }}
{{- with .Values.store.postgres }}
{{- $names = list (ternary .existingSecret.name "" (ne .existingSecret.urlKey "")) .caSecret.name }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- $names = append $names (dig "valueFrom" "secretKeyRef" "name" "" .) }}
{{- end }}
{{- $versions := list }}
{{- range $names | compact | uniq | sortAlpha }}
{{- $versions = append $versions (dig "metadata" "resourceVersion" "" (lookup "v1" "Secret" $.Release.Namespace .)) }}
{{- end }}
{{- $versions | compact | join "-" }}
{{- end }}

{{/* The pod, the same under a StatefulSet and a Deployment. */}}
{{- define "user-service.pod" -}}
metadata:
  annotations:
    {{- with include "user-service.secrets" . }}
    checksum/secrets: {{ . | quote }}
    {{- end }}
    kubectl.kubernetes.io/default-container: user-service
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "user-service.selector" . | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "user-service.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: {{ .Values.enableServiceLinks }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (include "user-service.gracePeriod" .) }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq (include "user-service.many" .) "true" }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ toYaml . | nindent 6 | trim }}
      labelSelector:
        matchLabels:
          {{- include "user-service.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- end }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: user-service
      {{- include "user-service.container" . | nindent 6 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
    {{- if .Values.tls.enabled }}
    {{- include "user-service.tls.volume" . | nindent 4 }}
    {{- end }}
    {{- if eq .Values.store.type "postgres" }}
    {{- include "user-service.database.volume" (list . .Values.store.postgres) | nindent 4 }}
    {{- end }}
    {{- with include "user-service.auth.volume" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
