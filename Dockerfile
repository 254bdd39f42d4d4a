# releve with its embedded engines. Everything it keeps is in the volume /data; give CLICKHOUSE_URL and POSTGRES_URL to use
# servers instead. glibc is needed (the embedded ClickHouse has no musl build), hence slim and not alpine.
FROM node:20-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm install --no-audit --no-fund
COPY . .
RUN npm run build && npm prune --omit=dev --no-audit --no-fund

FROM node:20-slim
ENV NODE_ENV=production RELEVE_DATA=/data RELEVE_HOST=0.0.0.0 RELEVE_PORT=8484
WORKDIR /app
COPY --from=build /app /app
# The data directory is made before the volume is declared, so that a new volume belongs to the ordinary user.
RUN mkdir -m 700 /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 8484
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8484/health/live').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# SIGTERM drains, seals and stops the engines. Run with --init: it reaps what killed engines leave, node as process 1 does not.
CMD ["node", "dist/src/main.js", "serve"]
