/* GloVe by plain stochastic gradients, as a peer of dlcore.models.embedding.glove.

   Lock-free threads walk over shards of shuffled cells X_ij and take for each one a step of
   AdaGrad on 1/2 f(X_ij) (w_i . c_j + b_i + d_j - log X_ij)^2 (Pennington et al. 2014, eq. 8 and
   section 4.2), with one accumulator per number. As in the program that the authors published, the
   accumulators start at 1 and sum the squares of rate times gradient.

   Build: gcc -O3 -march=native -ffast-math -pthread glove_peer.c -o glove_peer -lm
          (-DREAL=float for single precision; the authors' program computes in double)
   Use:   glove_peer FOLDER V D PASSES THREADS RATE X_MAX ALPHA SEED
          FOLDER/rows.bin, columns.bin: int32, values.bin: float32, one number per cell, shuffled.
          After pass p the floats of w [V, D], b [V], c [V, D], d [V] are in FOLDER/peer.p.bin.
   Prints one line per pass: pass, mean cost met on the way, seconds of the pass. */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifndef REAL
#define REAL double
#endif
typedef REAL real;

static long V, D, cells, threads;
static double rate, x_max, alpha;
static int32_t *rows, *columns;
static float *values;
static real *table, *squares; /* 2 V rows of D numbers and a bias: words, then contexts */
static double *cost;

static void *load(const char *folder, const char *name, size_t size, long *count) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(2); }
    fseek(file, 0, SEEK_END);
    *count = ftell(file) / (long)size;
    rewind(file);
    void *data = malloc(*count * size);
    if (!data || fread(data, size, *count, file) != (size_t)*count) { perror(path); exit(2); }
    fclose(file);
    return data;
}

static void *walk(void *argument) {
    long shard = (long)argument, width = D + 1;
    double sum = 0;
    for (long k = cells * shard / threads; k < cells * (shard + 1) / threads; k++) {
        real *restrict w = table + rows[k] * width, *restrict gw = squares + rows[k] * width;
        real *restrict c = table + (V + columns[k]) * width;
        real *restrict gc = squares + (V + columns[k]) * width;
        real error = w[D] + c[D] - (real)log(values[k]);
        for (long a = 0; a < D; a++) error += w[a] * c[a];
        real weighted = values[k] < x_max ? (real)pow(values[k] / x_max, alpha) * error : error;
        if (!(fabs(weighted) < 1e30)) continue;
        sum += 0.5 * weighted * error;
        weighted *= (real)rate;
        for (long a = 0; a < D; a++) {
            real step_w = weighted * c[a], step_c = weighted * w[a];
            w[a] -= step_w / (real)sqrt(gw[a]);
            c[a] -= step_c / (real)sqrt(gc[a]);
            gw[a] += step_w * step_w;
            gc[a] += step_c * step_c;
        }
        w[D] -= weighted / (real)sqrt(gw[D]);
        c[D] -= weighted / (real)sqrt(gc[D]);
        gw[D] += weighted * weighted;
        gc[D] += weighted * weighted;
    }
    cost[shard] = sum;
    return NULL;
}

static void save(const char *folder, int pass) {
    char path[4096];
    snprintf(path, sizeof path, "%s/peer.%d.bin", folder, pass);
    FILE *file = fopen(path, "wb");
    if (!file) { perror(path); exit(2); }
    for (long part = 0; part < 2; part++)
        for (long bias = 0; bias < 2; bias++)
            for (long i = 0; i < V; i++) {
                real *row = table + (part * V + i) * (D + 1);
                for (long a = bias ? D : 0; a < (bias ? D + 1 : D); a++) {
                    float number = (float)row[a];
                    fwrite(&number, sizeof number, 1, file);
                }
            }
    if (fclose(file)) { perror(path); exit(2); }
}

int main(int count, char **arguments) {
    if (count != 10) { fprintf(stderr, "see the head of glove_peer.c\n"); return 2; }
    const char *folder = arguments[1];
    V = atol(arguments[2]);
    D = atol(arguments[3]);
    int passes = atoi(arguments[4]);
    threads = atol(arguments[5]);
    rate = atof(arguments[6]);
    x_max = atof(arguments[7]);
    alpha = atof(arguments[8]);
    long n_columns, n_values, size = 2 * V * (D + 1);
    rows = load(folder, "rows.bin", sizeof *rows, &cells);
    columns = load(folder, "columns.bin", sizeof *columns, &n_columns);
    values = load(folder, "values.bin", sizeof *values, &n_values);
    if (cells != n_columns || cells != n_values) { fprintf(stderr, "lengths differ\n"); return 2; }
    table = malloc(size * sizeof *table);
    squares = malloc(size * sizeof *squares);
    cost = malloc(threads * sizeof *cost);
    pthread_t *workers = malloc(threads * sizeof *workers);
    srand48(atol(arguments[9]));
    for (long a = 0; a < size; a++) {
        table[a] = (real)((drand48() - 0.5) / D);
        squares[a] = 1;
    }
    for (int pass = 1; pass <= passes; pass++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (long t = 0; t < threads; t++) pthread_create(workers + t, NULL, walk, (void *)t);
        double sum = 0;
        for (long t = 0; t < threads; t++) {
            pthread_join(workers[t], NULL);
            sum += cost[t];
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        double seconds = end.tv_sec - start.tv_sec + 1e-9 * (end.tv_nsec - start.tv_nsec);
        printf("%d %.6f %.3f\n", pass, sum / cells, seconds);
        fflush(stdout);
        save(folder, pass);
    }
    return 0;
}
