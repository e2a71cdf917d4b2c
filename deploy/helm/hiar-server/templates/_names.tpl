{{/* Names and labels. */}}

{{- define "hiar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is put behind it, and for the names of pods in labels. A service's begins with a letter, which
a release's need not. */}}
{{- define "hiar.fullname" -}}
{{- $name := include "hiar.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if regexMatch "^[0-9]" .Release.Name -}}
{{- $full = printf "%s-%s" $name .Release.Name -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Not the fullname with lws: its controller takes a Service of the group's name for the headless one it needs. */}}
{{- define "hiar.workload" -}}
{{- include "hiar.fullname" . }}{{ if eq .Values.topology.mode "lws" }}-group{{ end }}
{{- end -}}

{{- define "hiar.headless" -}}
{{- include "hiar.fullname" . }}-pods
{{- end -}}

{{/* Names that requests may call a server by: of services and pods inside the cluster, and of what stands in front. */}}
{{- define "hiar.hosts" -}}
{{- $pods := eq .Values.topology.mode "lws" | ternary (include "hiar.workload" .) (include "hiar.headless" .) -}}
{{- $names := .Values.server.allowedHosts | default list -}}
{{- range $name := list (include "hiar.fullname" .) (printf "*.%s" $pods) -}}
{{- range $suffix := list "" ".%s" ".%s.svc" ".%s.svc.cluster.local" -}}
{{- $names = append $names (printf "%s%s" $name (replace "%s" $.Release.Namespace $suffix)) -}}
{{- end -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- $names = concat $names (.Values.ingress.hosts | default (list "*")) -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
{{- $names = concat $names (.Values.httpRoute.hostnames | default (list "*")) -}}
{{- end -}}
{{- join "," ($names | uniq) -}}
{{- end -}}

{{- define "hiar.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hiar.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What selects all pods of a release; a component is added. */}}
{{- define "hiar.instance" -}}
app.kubernetes.io/name: {{ include "hiar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Pods that serve HTTP. */}}
{{- define "hiar.serverSelector" -}}
{{ include "hiar.instance" . }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Those, and the pods that lend them devices. */}}
{{- define "hiar.groupSelector" -}}
matchLabels:
  {{- include "hiar.instance" . | nindent 2 }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: [server, node]
{{- end -}}

{{/* Labels of an object. */}}
{{- define "hiar.labels" -}}
{{ include "hiar.instance" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "hiar.image" -}}
{{- $tag := .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (eq .Values.devices.kind "cuda" | ternary "-cuda" "")) -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}
