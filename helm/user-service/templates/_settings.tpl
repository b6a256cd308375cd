{{/*
The settings, as variables of the pod's template and not as a ConfigMap beside it: a
change of them is a rollout, an undone rollout undoes them, and a pod that the old
ReplicaSet has to start while a new one fails has the old ones.
*/}}
{{- define "user-service.settings" -}}
- name: USERSVC_GRPC_ADDR
  value: "[::]:50051"
- name: USERSVC_ADMIN_ADDR
  value: "[::]:9464"
{{- with get (dict "sqlite" "sqlite:/data/user-service.db" "memory" "memory:") .Values.store.type }}
- name: USERSVC_STORE_URL
  value: {{ . | quote }}
{{- end }}
{{- range $key, $value := .Values.config }}
- name: USERSVC_{{ upper $key }}
  value: {{ kindIs "string" $value | ternary $value (toRawJson $value) | quote }}
{{- end }}
{{- end }}
