{{- define "dask.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "dask.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dask.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* What selects a component's pods: (list root component). */ -}}
{{- define "dask.selector" -}}
{{- $root := index . 0 -}}
app: {{ template "dask.name" $root }}
release: {{ $root.Release.Name | quote }}
component: {{ index . 1 }}
{{- end -}}

{{- /* All labels of a component's objects: (list root component). */ -}}
{{- define "dask.labels" -}}
{{- $root := index . 0 -}}
{{ include "dask.selector" . }}
heritage: {{ $root.Release.Service | quote }}
chart: {{ template "dask.chart" $root }}
{{- end -}}

{{- /* Where the scheduler's Service is, by name. */ -}}
{{- define "dask.scheduler" -}}
{{ template "dask.fullname" . }}-{{ .Values.scheduler.name }}
{{- end -}}

{{- /* What workers and notebooks connect to. */ -}}
{{- define "dask.address" -}}
{{- if .Values.worker.custom_scheduler_url -}}
{{ .Values.worker.custom_scheduler_url }}
{{- else -}}
{{ template "dask.scheduler" . }}:{{ .Values.scheduler.servicePort }}
{{- end -}}
{{- end -}}

{{- /* Where pods may run, and as whom: the values of one component. */ -}}
{{- define "dask.placement" -}}
{{- with .image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* A processor limit as threads: "500m" and 0.5 are one. */ -}}
{{- define "dask.threads" -}}
{{- $cpu := toString . -}}
{{- if hasSuffix "m" $cpu -}}
{{- divf (trimSuffix "m" $cpu | float64) 1000.0 | ceil | int -}}
{{- else -}}
{{- float64 $cpu | ceil | int -}}
{{- end -}}
{{- end -}}
