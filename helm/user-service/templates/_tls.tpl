{{/* The Secret with the port's certificate. */}}
{{- define "user-service.tls.secret" -}}
{{- ternary (printf "%s-tls" (include "user-service.fullname" .)) .Values.tls.existingSecret.name .Values.tls.certificate.enabled }}
{{- end }}

{{/* The Secret with what `helm test` shows; nothing where no certificate is asked for. */}}
{{- define "user-service.tls.testSecret" -}}
{{- if and .Values.tls.enabled (ne .Values.tls.clients.auth "none") }}
{{- .Values.tls.clients.testSecret | default (ternary (printf "%s-test-tls" (include "user-service.fullname" .)) "" .Values.tls.certificate.enabled) }}
{{- end }}
{{- end }}

{{/* The name in the certificate. */}}
{{- define "user-service.tls.serverName" -}}
{{- .Values.tls.serverName | default (printf "%s.%s.svc" (include "user-service.fullname" .) .Release.Namespace) }}
{{- end }}

{{/* The settings of TLS, as variables. */}}
{{- define "user-service.tls.env" -}}
- name: USERSVC_TLS_CERT_FILE
  value: /run/secrets/tls/tls.crt
- name: USERSVC_TLS_KEY_FILE
  value: /run/secrets/tls/tls.key
{{- if ne .Values.tls.clients.auth "none" }}
- name: USERSVC_TLS_CLIENT_CA_FILE
  value: /run/secrets/tls/client-ca.crt
- name: USERSVC_TLS_CLIENT_AUTH
  value: {{ .Values.tls.clients.auth }}
{{- end }}
{{- if .Values.tls.issuer.verify }}
- name: USERSVC_TLS_ISSUER_CA_FILE
  value: /run/secrets/tls/issuer-ca.crt
{{- end }}
{{- end }}

{{/* The files of TLS, as the one item of a list of volumes. A volume without subPath, so that renewed files arrive. */}}
{{- define "user-service.tls.volume" -}}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "user-service.tls.secret" . | quote }}
          items:
            - {key: tls.crt, path: tls.crt}
            - {key: tls.key, path: tls.key}
      {{- if ne .Values.tls.clients.auth "none" }}
      - secret:
          name: {{ .Values.tls.clients.caSecret.name | quote }}
          items:
            - key: {{ .Values.tls.clients.caSecret.key | quote }}
              path: client-ca.crt
      {{- end }}
      {{- with .Values.tls.issuer }}
      {{- if .verify }}
      - secret:
          name: {{ .caSecret.name | default (include "user-service.tls.secret" $) | quote }}
          items:
            - key: {{ .caSecret.key | quote }}
              path: issuer-ca.crt
      {{- end }}
      {{- end }}
{{- end }}
