{{/* Values that contradict each other in a way that the schema cannot say. */}}

{{- define "hiar.refusals" -}}
{{- $gpu := .Values.devices.gpuResource -}}
{{- range $key, $amounts := .Values.resources -}}
{{- if and $gpu (kindIs "map" $amounts) (hasKey $amounts $gpu) -}}
{{- fail (printf "/resources/%s names %s: /devices/count is the number of GPUs" $key $gpu) -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.metrics.port) (int .Values.server.port) -}}
{{- fail "/metrics/port is /server/port: metrics have a port of their own" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "/autoscaling/minReplicas is above /autoscaling/maxReplicas" -}}
{{- end -}}
{{- $several := or (gt (int .Values.topology.replicas) 1) (ne .Values.autoscaling.kind "none") -}}
{{- include "hiar.refusalsOfDurability" (dict "durability" .Values.durability "several" $several "mode" .Values.topology.mode) -}}
{{- end -}}

{{- define "hiar.refusalsOfDurability" -}}
{{- $several := .several -}}
{{- $mode := .mode -}}
{{- with .durability -}}
{{- if and $several (not .databaseSecret.name) -}}
{{- fail "/durability/databaseSecret/name is empty: several servers (/topology/replicas, /autoscaling/kind) share their jobs by a database, and /durability/store or a claim that all mount" -}}
{{- end -}}
{{- if and .store (not .databaseSecret.name) -}}
{{- fail "/durability/databaseSecret/name is empty: /durability/store needs a database" -}}
{{- end -}}
{{- if and .databaseSecret.name (not .store) (ne .volume.kind "existing") -}}
{{- fail "/durability/store is empty and /durability/volume/kind is not existing: a database holds no files of videos" -}}
{{- end -}}
{{- if and .storeSecret.name (not .store) -}}
{{- fail "/durability/store is empty: /durability/storeSecret is for one" -}}
{{- end -}}
{{- if and (eq .volume.kind "emptyDir") (kindIs "invalid" .keepBytes) -}}
{{- fail "/durability/keepBytes is null: Kubernetes evicts a pod whose emptyDir grows beyond /durability/volume/size" -}}
{{- end -}}
{{- if and (eq .volume.kind "perPod") (eq $mode "lws") -}}
{{- fail "/durability/volume/kind is perPod: pods of a group have no claims of their own" -}}
{{- end -}}
{{- end -}}
{{- end -}}
