{{/* The settings of identity and rules; nothing where auth is off. */}}
{{- define "user-service.auth.env" -}}
{{- with .Values.auth -}}
{{- if .enabled -}}
- name: USERSVC_AUTH_POLICY_FILE
  value: /run/auth/policy.toml
{{- if .jwks.url }}
- name: USERSVC_AUTH_JWKS_URL
  value: {{ .jwks.url | quote }}
{{- if .jwks.caSecret.name }}
- name: USERSVC_AUTH_JWKS_CA_FILE
  value: /run/auth/ca.crt
{{- end }}
{{- else }}
- name: USERSVC_AUTH_JWKS_FILE
  value: /run/auth/jwks.json
{{- end }}
- name: USERSVC_AUTH_ISSUER
  value: {{ .issuer | quote }}
- name: USERSVC_AUTH_AUDIENCE
  value: {{ .audience | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Keys and policy in one folder, as the one item of a list of volumes. The kubelet brings it up to date, and the service reads it again. */}}
{{- define "user-service.auth.volume" -}}
{{- with .Values.auth -}}
{{- if .enabled -}}
- name: auth
  projected:
    defaultMode: 0440
    sources:
      {{- with .jwks }}
      {{- if .url }}
      {{- with .caSecret }}
      {{- if .name }}
      - secret:
          name: {{ .name | quote }}
          items:
            - key: {{ .key | quote }}
              path: ca.crt
      {{- end }}
      {{- end }}
      {{- else if .existingSecret.name }}
      - secret:
          name: {{ .existingSecret.name | quote }}
          items:
            - key: {{ .existingSecret.key | quote }}
              path: jwks.json
      {{- else }}
      - configMap:
          name: {{ .existingConfigMap.name | quote }}
          items:
            - key: {{ .existingConfigMap.key | quote }}
              path: jwks.json
      {{- end }}
      {{- end }}
      {{- with .policy }}
      - configMap:
          name: {{ .existingConfigMap.name | default (printf "%s-policy" (include "user-service.fullname" $)) | quote }}
          items:
            - key: {{ empty .existingConfigMap.name | ternary "policy.toml" .existingConfigMap.key | quote }}
              path: policy.toml
      {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The token that `helm test` sends, as the source of a projected volume; nothing where it has none. */}}
{{- define "user-service.auth.testToken" -}}
{{- if .Values.auth.enabled }}
{{- with .Values.auth.test }}
{{- if .serviceAccountToken -}}
- serviceAccountToken:
    audience: {{ $.Values.auth.audience | quote }}
    expirationSeconds: 600
    path: token
{{- else if .existingSecret.name -}}
- secret:
    name: {{ .existingSecret.name | quote }}
    items:
      - key: {{ .existingSecret.key | quote }}
        path: token
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether `helm test` has an identity, or needs none. */}}
{{- define "user-service.auth.hasTest" -}}
{{- or (not .Values.auth.enabled) (ne (include "user-service.auth.testToken" .) "") (ne (include "user-service.tls.testSecret" .) "") }}
{{- end }}

{{/* What of auth no install may go against. */}}
{{- define "user-service.checks.auth" -}}
{{- with .Values.auth }}
{{- if .enabled }}
{{- if or (not .issuer) (not .audience) }}
{{- fail "auth.enabled needs auth.issuer and auth.audience: a token of any issuer, or for any service, would be taken" }}
{{- end }}
{{- if ne 1 (list .jwks.url .jwks.existingSecret.name .jwks.existingConfigMap.name | compact | len) }}
{{- fail "auth.enabled needs the keys of tokens either in auth.jwks.url or in auth.jwks.existingSecret or in auth.jwks.existingConfigMap" }}
{{- end }}
{{- if eq (empty .policy.inline) (empty .policy.existingConfigMap.name) }}
{{- fail "auth.enabled needs the policy either in auth.policy.inline or in auth.policy.existingConfigMap" }}
{{- end }}
{{- if and .test.serviceAccountToken .test.existingSecret.name }}
{{- fail "helm test sends one token: either auth.test.serviceAccountToken or that of auth.test.existingSecret" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
