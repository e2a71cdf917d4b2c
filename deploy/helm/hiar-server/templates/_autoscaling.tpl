{{/* What the two autoscalers share. */}}

{{- define "hiar.scaleTarget" -}}
{{- if eq .Values.topology.mode "lws" -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
{{- else -}}
apiVersion: apps/v1
kind: StatefulSet
{{- end }}
name: {{ include "hiar.workload" . }}
{{- end -}}

{{/* Quick up; slowly down, one server at a time: whoever is removed ends its videos. */}}
{{- define "hiar.scaleBehavior" -}}
{{- with .Values.autoscaling -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUpWindowSeconds }}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownWindowSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ .scaleDownPeriodSeconds }}}
{{- end -}}
{{- end -}}

{{/* Load of all servers together, in servers: the autoscaler divides it by their number. */}}
{{- define "hiar.loadQuery" -}}
{{- if .Values.autoscaling.keda.query -}}
{{- .Values.autoscaling.keda.query -}}
{{- else -}}
{{- $of := printf "{namespace=%q,service=%q}" .Release.Namespace (include "hiar.headless" .) -}}
{{- printf "sum(max_over_time(((hiar_videos_running%s + hiar_videos_waiting%s) / (hiar_video_slots%s > 0))[1m:15s]))" $of $of $of -}}
{{- end -}}
{{- end -}}
