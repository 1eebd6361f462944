{{- /* One group of workers: (dict "root" $ "worker" values "group" name "fullname" name-of-the-Deployment). */ -}}
{{- define "dask.workerGroup" -}}
{{- $worker := .worker -}}
{{- $limits := (($worker.resources).limits) | default dict -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .fullname }}
  labels:
    {{- include "dask.labels" (list .root "worker") | nindent 4 }}
    dask.org/workergroup-name: {{ .group }}
spec:
  replicas: {{ $worker.replicas }}
  selector:
    matchLabels:
      {{- include "dask.selector" (list .root "worker") | nindent 6 }}
      dask.org/workergroup-name: {{ .group }}
  {{- with $worker.strategy }}
  strategy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "dask.labels" (list .root "worker") | nindent 8 }}
        dask.org/workergroup-name: {{ .group }}
      {{- with $worker.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      # Kubernetes would add variables such as DASK_SCHEDULER_PORT, which dask reads as configuration.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $worker.terminationGracePeriodSeconds }}
      {{- with $worker.serviceAccountName }}
      serviceAccountName: {{ . | quote }}
      {{- end }}
      {{- include "dask.placement" $worker | nindent 6 }}
      containers:
        - name: dask-worker
          image: "{{ $worker.image.repository }}:{{ $worker.image.tag }}"
          imagePullPolicy: {{ $worker.image.pullPolicy }}
          args:
            {{- if kindIs "slice" $worker.image.dask_worker }}
            {{- toYaml $worker.image.dask_worker | nindent 12 }}
            {{- else }}
            {{- splitList " " $worker.image.dask_worker | toYaml | nindent 12 }}
            {{- end }}
            - {{ include "dask.address" .root | quote }}
            - --nthreads
            - {{ $worker.threads_per_worker | default (include "dask.threads" ($limits.cpu | default $worker.default_resources.cpu)) | quote }}
            - --memory-limit
            - {{ $limits.memory | default $worker.default_resources.memory | quote }}
            - --no-dashboard
            - --dashboard-address
            - {{ $worker.portDashboard | quote }}
            {{- with $worker.port }}
            - --worker-port
            - {{ . | quote }}
            {{- end }}
            {{- with $worker.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: http-dashboard
              containerPort: {{ $worker.portDashboard }}
          {{- with $worker.env }}
          env:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $worker.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with ($worker.mounts).volumeMounts }}
          volumeMounts:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $worker.livenessProbe }}
          livenessProbe:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $worker.readinessProbe }}
          readinessProbe:
            {{- toYaml . | nindent 12 }}
          {{- end }}
      {{- with ($worker.mounts).volumes }}
      volumes:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- if ($worker.podDisruptionBudget).enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .fullname }}
  labels:
    {{- include "dask.labels" (list .root "worker") | nindent 4 }}
    dask.org/workergroup-name: {{ .group }}
spec:
  maxUnavailable: {{ $worker.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "dask.selector" (list .root "worker") | nindent 6 }}
      dask.org/workergroup-name: {{ .group }}
{{- end }}
{{- end -}}
