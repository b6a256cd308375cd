{{/*
A login to PostgreSQL is a map with `url` and `existingSecret`: store.postgres is the
service's, and its `migration` the one that may change the schema.
*/}}

{{/* The environment of a login: (list $ login). The URL may hold a password, so it can come from a Secret. */}}
{{- define "user-service.database.env" -}}
{{- $login := index . 1 -}}
{{- with index . 0 -}}
- name: USERSVC_STORE_URL
  {{- if $login.url }}
  value: {{ $login.url | quote }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ $login.existingSecret.name | quote }}
      key: {{ $login.existingSecret.urlKey | quote }}
  {{- end }}
{{- if $login.existingSecret.passwordKey }}
- name: USERSVC_STORE_PASSWORD_FILE
  value: /run/secrets/database/password
{{- end }}
{{- if .Values.store.postgres.caSecret.name }}
- name: USERSVC_STORE_CA_FILE
  value: /run/secrets/database/ca.crt
{{- end }}
{{- if .Values.store.postgres.clientCertificate.name }}
- name: USERSVC_STORE_CERT_FILE
  value: /run/secrets/database/tls.crt
- name: USERSVC_STORE_KEY_FILE
  value: /run/secrets/database/tls.key
{{- end }}
{{- end }}
{{- end }}

{{/* The ports of the service's databases, as a list in JSON. A URL in a Secret cannot be read here. */}}
{{- define "user-service.database.ports" -}}
{{- $ports := .Values.networkPolicy.databasePorts }}
{{- if not $ports }}
{{- $url := .Values.store.postgres.url }}
{{- /* An option is taken in place of what stands behind the hosts. */}}
{{- $option := regexFind "[?&]port=[^&]*" $url | regexFind "[0-9,]*$" }}
{{- range $option | default (regexFind "@[^/?]*" $url | trimPrefix "@") | splitList "," }}
{{- $ports = append $ports (regexFind "(^|:)[0-9]+$" . | trimPrefix ":" | default "5432" | int) }}
{{- end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{/* The files of a login, as the one item of a list of volumes; nothing where there are none: (list $ login). */}}
{{- define "user-service.database.volume" -}}
{{- $login := (index . 1).existingSecret -}}
{{- $client := (index . 0).Values.store.postgres.clientCertificate.name -}}
{{- with (index . 0).Values.store.postgres.caSecret -}}
{{- if or $login.passwordKey .name $client -}}
- name: database
  projected:
    defaultMode: 0440
    sources:
      {{- if $login.passwordKey }}
      - secret:
          name: {{ $login.name | quote }}
          items:
            - key: {{ $login.passwordKey | quote }}
              path: password
      {{- end }}
      {{- if .name }}
      - secret:
          name: {{ .name | quote }}
          items:
            - key: {{ .key | quote }}
              path: ca.crt
      {{- end }}
      {{- if $client }}
      - secret:
          name: {{ $client | quote }}
          items:
            - {key: tls.crt, path: tls.crt}
            - {key: tls.key, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The login of the migration, which is the service's where none is given. */}}
{{- define "user-service.database.migration" -}}
{{- with .Values.store.postgres -}}
{{- $own := or .migration.url .migration.existingSecret.name }}
{{- empty $own | ternary (pick . "url" "existingSecret") .migration | toJson }}
{{- end }}
{{- end }}
