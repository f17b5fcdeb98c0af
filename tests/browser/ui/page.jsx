// A page of the published Perses packages, as others embed them: it asks what the stock UI asks, in the same order, and
// shows one dashboard, or the projects.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router-dom';
import { QueryParamProvider } from 'use-query-params';
import { ReactRouter6Adapter } from 'use-query-params/adapters/react-router-6';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { CssBaseline, ThemeProvider } from '@mui/material';
import { ChartsProvider, SnackbarProvider, generateChartsTheme, getTheme } from '@perses-dev/components';
import { PluginRegistry, ValidationProvider, remotePluginLoader } from '@perses-dev/plugin-system';
import { ViewDashboard } from '@perses-dev/dashboards';

const HEADERS = { 'Content-Type': 'application/json', Accept: 'application/json' };

async function get(path) {
  const answer = await fetch(path, { headers: HEADERS });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message ?? body.error ?? `${answer.status}`);
  return body;
}

const chosen = (selector) => (one) =>
  one.spec.plugin.kind === selector.kind && (selector.name ? one.metadata.name === selector.name : one.spec.default);

const datasourceApi = {
  buildProxyUrl: ({ project, dashboard, name }) => {
    if (project && dashboard) return `/proxy/projects/${project}/dashboards/${dashboard}/datasources/${name}`;
    return project ? `/proxy/projects/${project}/datasources/${name}` : `/proxy/globaldatasources/${name}`;
  },
  getDatasource: async (project, selector) => (await get('/api/v1/datasources')).filter((one) => one.metadata.project === project).find(chosen(selector)),
  getGlobalDatasource: async (selector) => (await get('/api/v1/globaldatasources')).find(chosen(selector)),
  listDatasources: async (project) => (await get('/api/v1/datasources')).filter((one) => one.metadata.project === project),
  listGlobalDatasources: () => get('/api/v1/globaldatasources'),
};

function Dashboard({ dashboard, readonly }) {
  const theme = getTheme('light');
  return (
    <ThemeProvider theme={theme}>
      <CssBaseline />
      <ChartsProvider chartsTheme={generateChartsTheme(theme, {})}>
        <SnackbarProvider anchorOrigin={{ vertical: 'bottom', horizontal: 'left' }}>
          <PluginRegistry
            pluginLoader={remotePluginLoader()}
            defaultPluginKinds={{ Panel: 'TimeSeriesChart', TimeSeriesQuery: 'PrometheusTimeSeriesQuery' }}
          >
            <ValidationProvider>
              <ViewDashboard
                dashboardResource={dashboard}
                datasourceApi={datasourceApi}
                isReadonly={readonly}
                isVariableEnabled
                isDatasourceEnabled
              />
            </ValidationProvider>
          </PluginRegistry>
        </SnackbarProvider>
      </ChartsProvider>
    </ThemeProvider>
  );
}

function Projects({ projects }) {
  return <ul id="projects">{projects.map(({ metadata: { name } }) => <li key={name}><a href={`/projects/${name}`}>{name}</a></li>)}</ul>;
}

async function content() {
  const config = await get('/api/config');
  const me = await get('/api/v1/user/whoami');
  const rights = await get(`/api/v1/users/${encodeURIComponent(me.metadata.name)}/permissions`);
  await get('/api/v1/health');
  const person = <p id="person">{me.metadata.name}</p>;
  const [, , project, , dashboard] = location.pathname.split('/');
  if (!dashboard) return <>{person}<Projects projects={await get('/api/v1/projects')} /></>;
  await get(`/api/v1/projects/${project}`);
  const resource = await get(`/api/v1/projects/${project}/dashboards/${dashboard}`);
  await get('/api/v1/globalvariables');
  await get(`/api/v1/projects/${project}/variables`);
  const may = [...(rights['*'] ?? []), ...(rights[project] ?? [])];
  const edits = may.some(({ actions, scopes }) => scopes.some((scope) => scope === 'Dashboard' || scope === '*') && actions.some((action) => action === 'update' || action === '*'));
  setTimeout(() => fetch('/api/v1/view', { method: 'POST', headers: HEADERS, body: JSON.stringify({ project, dashboard, render_time: 1, render_errors: 0 }) }), 0);
  return <>{person}<Dashboard dashboard={resource} readonly={!edits || config.security.readonly} /></>;
}

class Fence extends React.Component {
  state = {};

  static getDerivedStateFromError(error) { return { error }; }

  render() { return this.state.error ? <p id="problem">{String(this.state.error)}</p> : this.props.children; }
}

const root = createRoot(document.getElementById('root'));
const client = new QueryClient({ defaultOptions: { queries: { refetchOnWindowFocus: false, retry: 0 } } });
content().then(
  (inner) => root.render(
    <BrowserRouter>
      <QueryClientProvider client={client}>
        <QueryParamProvider adapter={ReactRouter6Adapter}><Fence>{inner}</Fence></QueryParamProvider>
      </QueryClientProvider>
    </BrowserRouter>,
  ),
  (error) => root.render(<p id="problem">{error.message}</p>),
);
